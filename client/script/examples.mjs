// Compiles the examples of the README against the package's own types.
import { spawnSync } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';

// Below the package, where its own name finds it.
const directory = 'dist/examples';
await rm(directory, { recursive: true, force: true });
await mkdir(directory, { recursive: true });
const readme = await readFile('README.md', 'utf8');
const examples = [...readme.matchAll(/^```(tsx?)\n(.*?)^```/gms)];
if (!examples.length) throw new Error('the README has no examples');
const files = examples.map(([, kind], number) => `${directory}/${number + 1}.${kind}`);
await Promise.all(examples.map(([, , code], number) => writeFile(files[number], code)));
const strict = ['--noEmit', '--strict', '--ignoreConfig', '--target', 'es2022', '--module', 'nodenext', '--jsx', 'react-jsx', '--types', 'node'];
const { status } = spawnSync('npx', ['tsc', ...strict, ...files], { stdio: 'inherit' });
await rm(directory, { recursive: true });
process.exit(status);

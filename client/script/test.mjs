// Runs the tests in Node. They are bundled first, since Node 20 reads no types.
import { build } from 'esbuild';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const outdir = await mkdtemp(join(tmpdir(), 'halley-client-'));
const tests = (await readdir('test')).filter((name) => name.endsWith('.test.ts'));
await build({
  entryPoints: tests.map((name) => join('test', name)),
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  sourcemap: 'inline',
  // React's modules are CommonJS, and require what Node has.
  banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  outdir,
  outExtension: { '.js': '.mjs' },
});
const built = tests.map((name) => join(outdir, name.replace('.ts', '.mjs')));
const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', '--test-timeout=120000', ...built], { stdio: 'inherit' });
await rm(outdir, { recursive: true });
process.exit(status);

// Builds the package into dist/ and what the server serves into served/.
// With --check nothing in served/ is written: it must be what is built.
import { build } from 'esbuild';
import { readFile, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { minify } from 'terser';

const budget = JSON.parse(await readFile('package.json', 'utf8')).sizeLimit;

// What begins with an underscore is internal. It is renamed, and so kept from
// those who use the package.
const internal = /^_[a-z]/;

/** With a map, the code ends in a comment that names it. */
async function bundle(entry, file, format, withMap) {
  const name = file.split('/').at(-1);
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    format,
    target: 'es2022',
    minify: true,
    mangleProps: internal,
    sourcemap: 'external',
    outfile: file,
    write: false,
  });
  const [map, code] = outputFiles.map(({ text }) => text);
  // Terser finds a little that esbuild leaves.
  const small = await minify(code, {
    ecma: 2022,
    module: format === 'esm',
    // Unsafe is no more than what takes template strings for sums; statements
    // compress better than sequences.
    compress: { passes: 3, unsafe: true, unsafe_arrows: true, sequences: false },
    sourceMap: withMap && { content: map, filename: name, url: `${name}.map`, includeSources: true },
  });
  await writeFile(file, small.code);
  if (withMap) await writeFile(`${file}.map`, small.map);
  return small.code;
}

const module = await bundle('src/index.ts', 'dist/index.js', 'esm', false);
const classic = await bundle('src/classic.ts', 'dist/halley.js', 'iife', true);

// It is small, and left legible; the client is the one beside it. Frameworks
// that render on the server look for the directive.
await build({
  entryPoints: ['src/react.ts'],
  bundle: true,
  format: 'esm',
  target: 'es2022',
  external: ['react', './index.js'],
  banner: { js: "'use client';" },
  sourcemap: true,
  outfile: 'dist/react.js',
});

const served = classic.replace(/\n?\/\/# sourceMappingURL=.*\n?$/, '\n');
if (process.argv.includes('--check')) {
  if (served !== (await readFile('served/client.js', 'utf8'))) {
    throw new Error('served/client.js is not what is built from src: run npm run build');
  }
} else {
  await writeFile('served/client.js', served);
}

const size = gzipSync(module, { level: 9 }).length;
console.log(`dist/index.js: ${module.length} bytes, ${size} with gzip, of ${budget} at most`);
if (size > budget) throw new Error('the module is too large');

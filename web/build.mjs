// Builds the page: web/dist/{index.html,app.js,app.css,favicon.svg}, fixed names,
// because the C server has them in its binary.  `--test` instead bundles the
// protocol client alone for Node's test runner; `--watch` keeps building.
import { copyFile, mkdir, rm, stat } from 'node:fs/promises';
import { build, context } from 'esbuild';

const args = new Set(process.argv.slice(2));

if (args.has('--test')) {
  await build({
    entryPoints: ['src/protocol/index.ts'],
    bundle: true,
    format: 'esm',
    platform: 'neutral', // the client must not need a DOM
    target: 'node18',
    outfile: 'node_modules/.cache/protocol.mjs',
    logLevel: 'warning',
  });
} else {
  const options = {
    entryPoints: { app: 'src/main.tsx' },
    bundle: true,
    minify: true,
    format: 'iife',
    target: ['es2020', 'firefox102', 'safari15'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'none',
    outdir: 'dist',
    logLevel: 'warning',
  };
  await rm('dist', { recursive: true, force: true });
  await mkdir('dist', { recursive: true });
  await copyFile('src/index.html', 'dist/index.html');
  await copyFile('src/favicon.svg', 'dist/favicon.svg');
  if (args.has('--watch')) {
    await (await context(options)).watch();
  } else {
    await build(options);
    for (const name of ['index.html', 'app.js', 'app.css', 'favicon.svg'])
      console.log(`${String((await stat(`dist/${name}`)).size).padStart(7)}  dist/${name}`);
  }
}

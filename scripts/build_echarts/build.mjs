// Bundles entry.js into one minified file for the report, with its licence and its SHA-256; needs `npm ci` first.
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, '..', '..', 'src', 'finestep', 'report', 'vendor');
const { version } = JSON.parse(readFileSync(join(here, 'node_modules', 'echarts', 'package.json'), 'utf8'));

const result = await build({
  absWorkingDir: here,
  entryPoints: ['entry.js'],
  bundle: true,
  minify: true,
  format: 'iife',
  globalName: 'echarts',
  target: 'es2020',
  charset: 'ascii',
  legalComments: 'none',
  define: { 'process.env.NODE_ENV': '"production"' },
  banner: { js: `/* Apache ECharts ${version}, a subset. Apache-2.0, The Apache Software Foundation; zrender: BSD-3-Clause. */` },
  write: false,
});

// A literal "</script" or "<!--" would end the block of the page that the file is embedded in.
const text = result.outputFiles[0].text;
if (/<\/script|<!--/i.test(text)) throw new Error('the bundle holds "</script" or "<!--" and cannot be embedded');

const sha256 = createHash('sha256').update(text).digest('hex');
writeFileSync(join(out, 'echarts.min.js'), text);
writeFileSync(join(out, 'echarts.min.js.sha256'), `${sha256}  echarts.min.js\n`);
copyFileSync(join(here, 'node_modules', 'echarts', 'LICENSE'), join(out, 'echarts.LICENSE'));
copyFileSync(join(here, 'node_modules', 'echarts', 'NOTICE'), join(out, 'echarts.NOTICE'));
copyFileSync(join(here, 'node_modules', 'zrender', 'LICENSE'), join(out, 'zrender.LICENSE'));
console.log(`echarts ${version}: ${text.length} bytes, sha256 ${sha256}`);

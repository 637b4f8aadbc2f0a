// Words, numbers and elements. Text of others only ever becomes a text node; `say` looks a sentence up in the chosen language.
const byId = (id) => document.getElementById(id);
const root = document.documentElement;
const page = { data: null, language: 'en', chosenLanguage: '', color: {} };

function say(template, fields) {
  const text = (page.language === 'zh' && page.data.zh && page.data.zh[template]) || template;
  return fields ? text.replace(/\{(\w+)\}/g, (whole, name) => (name in fields ? String(fields[name]) : whole)) : text;
}
function pickLanguage() {
  const asked = page.chosenLanguage || page.data.language || (navigator.languages && navigator.languages[0]) || navigator.language || 'en';
  page.language = asked.toLowerCase().startsWith('zh') ? 'zh' : 'en';
  root.lang = page.language === 'zh' ? 'zh-CN' : 'en';
}

// ---- elements --------------------------------------------------------------------------------------------------------
function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'on') for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
function svg(name, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}
function button(text, pressed, press, attributes) {
  return h('button', { type: 'button', 'aria-pressed': pressed === null ? null : String(pressed), on: { click: press }, ...attributes }, text);
}
function chooser(name, choices, chosen, choose) {
  const box = h('div', {}, choices.map(([value, text]) => button(text, value === chosen, () => choose(value))));
  return h('span', { class: 'group' }, name, box);
}
function code(text, name) {
  const line = h('code', { translate: 'no' }, text);
  const press = button(say('Copy'), null, async () => {
    try {
      await navigator.clipboard.writeText(text);
      press.textContent = say('Copied');
    } catch {
      getSelection().selectAllChildren(line);
      press.textContent = document.execCommand('copy') ? say('Copied') : say('Selected');
    }
    setTimeout(() => { press.textContent = say('Copy'); }, 1600);
  });
  return h('div', { class: 'command' }, name ? h('span', { class: 'what' }, name) : null, line, press);
}
function shape(kind, fill, hollow) {
  const paths = { circle: 'M7,1a4,4 0 1,0 .01,0', diamond: 'M7,0l5,5l-5,5l-5,-5z', line: 'M0,3.8h14v2.4h-14z', dash: 'M0,3.8h5v2.4h-5zM9,3.8h5v2.4h-5z',
    cross: 'M3,2.4l1.4,-1.4l2.6,2.6l2.6,-2.6l1.4,1.4l-2.6,2.6l2.6,2.6l-1.4,1.4l-2.6,-2.6l-2.6,2.6l-1.4,-1.4l2.6,-2.6z', band: 'M0,0h14v10h-14z' };
  const outline = hollow ? { fill: 'none', stroke: fill, 'stroke-width': 1.6 } : { fill };
  return svg('svg', { viewBox: '0 0 14 10', 'aria-hidden': 'true' }, svg('path', { d: paths[kind], ...outline }));
}

// ---- numbers ---------------------------------------------------------------------------------------------------------
function padExponent(text) { return text.replace(/e([+-])(\d)$/, 'e$10$2'); }
function rate(value) { return padExponent(value.toExponential(1)); }
function rateTick(log10) { return padExponent(Number((10 ** log10).toPrecision(1)).toExponential(0)); }
function figure4(value) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'string') return value;
  return Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(3) : value.toFixed(4);
}
function amount(value) {
  for (const [size, prefix] of [[1e12, ' T'], [1e9, ' B'], [1e6, ' M'], [1e4, ' k']]) {
    if (Math.abs(value) >= size) return `${Number((value / (prefix === ' k' ? 1e3 : size)).toPrecision(3))}${prefix}`;
  }
  return `${Number(value.toPrecision(4))}`;
}
function clock(value) {
  if (value < 60) return `${Number(value.toPrecision(3))} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes}:${String(Math.round(value % 60)).padStart(2, '0')} min`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')} h`;
}
function percent(share) { return `${Number((100 * share).toPrecision(share < 0.1 ? 2 : 3))} %`; }
// A number such as 3.3e-03 stays in one line.
function unbroken(text) { return text.split(/(\d[\d.]*e[+-]\d+)/).map((part, i) => (i % 2 ? h('span', { class: 'number' }, part) : part)); }
function short(value) { return value === null ? say('not finite') : `${Number(value.toPrecision(4))}`; }
function lowest(values) { return values.reduce((a, b) => Math.min(a, b), Infinity); }
function highest(values) { return values.reduce((a, b) => Math.max(a, b), -Infinity); }
function mix(from, to, share) {
  const part = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(part(from, i) + share * (part(to, i) - part(from, i)))).join(',')})`;
}

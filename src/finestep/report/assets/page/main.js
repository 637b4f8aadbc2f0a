// The page as a whole: `finestep.update(data)` draws everything anew from data of the same keys; what was chosen stays chosen.
function numbered() {
  let number = 0;
  for (const section of document.querySelectorAll('main > section')) {
    const head = section.querySelector('h2');
    if (section.hidden || !head) continue;
    number += 1;
    const [mark, words] = head.children;
    mark.textContent = String(number);
    words.textContent = say(page.data.titles[section.id.slice(2)]);
  }
}
function drawWords() {
  for (const element of document.querySelectorAll('[data-say]')) element.textContent = say(element.dataset.say);
  const { about, warning } = page.data.basin;
  byId('basin-about').textContent = about.map((text) => say(text)).join(' ');
  byId('basin-warning').textContent = say(warning);
  byId('basin-warning').hidden = !warning;
  byId('curves-about').textContent = page.data.curves_about.map((text) => say(text)).join(' ');
  byId('runs-about').textContent = say('Best first. Tap the number of a run to read why it was tried.');
}
function redraw() {
  pickLanguage();
  readColors();
  byId('s-basin').hidden = !page.data.is_search;
  byId('s-map').hidden = !page.data.is_search || !hasMap();
  byId('s-curves').hidden = !hasCurves();
  byId('s-gradients').hidden = !hasGradients();
  drawWords();
  drawHero();
  drawLegend();
  drawTable();
  drawDiagnosis();
  drawAnswers();
  drawUse();
  drawProvenance();
  numbered();
  drawFigures();
}
// The words stand first; the figures follow one by one, each in a turn of its own, as soon as the drawing library is read.
const figures = [() => { if (page.data.is_search) { drawBasin(); drawByBatch(); } }, () => { if (page.data.is_search) drawMap(); }, () => drawCourses()];
let turn = 0;
function drawFigures() {
  if (typeof echarts === 'undefined') return;
  turn += 1;
  const mine = turn;
  figures.forEach((draw) => setTimeout(() => { if (mine === turn) draw(); }, 0));
}
function drawFiguresNow() { turn += 1; figures.forEach((draw) => draw()); }
function showLight() {
  drawLegend();
  for (const row of document.querySelectorAll('#runs tr[data-run]')) row.classList.toggle('lit', Number(row.dataset.run) === state.lit);
  if (charts.basin && page.data.is_search) charts.basin.setOption({ series: [litSeries(basinRange(state.rows.filter((row) => ranks(row) && typeof measured(row) === 'number'))[1])] });
  if (charts.curves && hasCurves()) drawCurves();
  if (charts.gradients && hasGradients()) drawGradients();
}
function update(data) {
  page.data = data;
  readRuns();
  if (!state.byNumber.has(state.lit)) [state.lit, state.pinned] = [null, false];
  redraw();
}
function resizeAll() { for (const chart of Object.values(charts)) chart.resize(); }
function watchWindow() {
  let [width, waiting] = [root.clientWidth, 0];
  window.addEventListener('resize', () => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => { resizeAll(); redraw(); }, 80);
  });
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  window.addEventListener('beforeprint', () => { root.classList.add('printing'); resizeAll(); redraw(); drawFiguresNow(); });
  window.addEventListener('afterprint', () => { root.classList.remove('printing'); resizeAll(); redraw(); });
}

root.classList.add('js');
update(JSON.parse(byId('data').textContent));
watchWindow();
document.addEventListener('DOMContentLoaded', drawFigures);
window.finestep = { update, lightUp, get data() { return page.data; } };

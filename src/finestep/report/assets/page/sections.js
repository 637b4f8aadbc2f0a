// What is said in words: the verdict, the diagnosis, how to use the result, and where it comes from.
function drawHero() {
  const { data } = page;
  const tags = { settled: say('settled'), unsettled: say('not settled'), predicted: say('predicted, not yet run'), none: say('no answer') };
  const { verdict } = data;
  const other = page.language === 'zh' ? ['English', 'en'] : ['中文', 'zh'];
  const language = button(other[0], null, () => { page.chosenLanguage = other[1]; redraw(); }, { lang: other[1], class: 'plain' });
  const answer = h('div', { class: `tile answer ${verdict.tag}` },
    verdict.tag ? h('p', { class: 'tag' }, tags[verdict.tag]) : null,
    h('p', { class: 'headline' }, unbroken(say(verdict.headline))),
    verdict.doubt.map((text) => h('p', { class: 'doubt' }, unbroken(say(text)))),
    verdict.next ? code(verdict.next, say('Go on with')) : null);
  const tiles = data.tiles.map((tile) => h('div', { class: 'tile' }, h('p', { class: 'name' }, say(tile.name)),
    h('p', { class: 'value' }, say(tile.value), tile.error ? h('small', {}, ` ${tile.error}`) : null), tile.detail ? h('p', { class: 'detail' }, say(tile.detail)) : null));
  byId('hero').replaceChildren(
    h('div', { class: 'top' }, h('p', { class: 'eyebrow' }, data.live ? say('finestep, live') : say('finestep report')), language),
    h('h1', { translate: 'no' }, data.title), h('div', { class: `tiles of-${tiles.length}` }, answer, tiles), outcomes());
}
function outcomes() {
  const { counts, spent } = page.data;
  if (!counts.length) return '';
  const all = counts.reduce((sum, count) => sum + count.number, 0);
  let x = 0;
  const bars = counts.map((count) => {
    const bar = svg('rect', { class: `state-${count.state}`, x, y: 0, width: (1000 * count.number) / all, height: 8 });
    x += (1000 * count.number) / all;
    return bar;
  });
  return h('div', { class: 'outcomes' }, svg('svg', { class: 'counts', viewBox: '0 0 1000 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, ...bars),
    h('ul', {}, counts.map((count) => h('li', {}, h('i', { class: `dot state-${count.state}` }), `${count.number} `, stateWords(count.state))),
      spent.map((one) => h('li', {}, h('b', {}, say(one.value)), one.name ? ` ${say(one.name)}` : ''))));
}
function drawLegend() {
  const { data } = page;
  const { color } = page;
  const item = (mark, text, press, pressed) => (press ? button([mark, text], pressed, press) : h('span', {}, mark, text));
  const lit = state.lit !== null && !role(state.lit) ? state.byNumber.get(state.lit) : null;
  const items = [];
  if (data.best !== null) items.push(item(shape('circle', color.accent), `${bestName()}: ${say('run {number}', { number: data.best })}`));
  if (data.baseline !== null && data.baseline !== data.best) items.push(item(shape('diamond', color.baseline), `${say('usual default')}: ${say('run {number}', { number: data.baseline })}`));
  if (state.rows.length > 1) items.push(item(shape('circle', color.other), say('other runs; small and hollow: shorter runs')));
  if (state.rows.some((row) => row.state === 'diverged')) items.push(item(shape('cross', color.bad), say('diverged')));
  if (data.curves.some((curve) => curve.evals.length)) items.push(item(shape('circle', color.soft, true), say('on a curve: an evaluation')));
  const pick = h('select', { 'aria-label': say('Light up a run'), on: { change: (event) => lightUp(event.target.value === '' ? null : Number(event.target.value), true) } },
    h('option', { value: '' }, say('light up a run')), state.rows.slice(0, 400).map((row) => h('option', { value: row.number, selected: state.lit === row.number && state.pinned }, runLabel(row))));
  items.push(h('span', { class: 'lit' }, shape('circle', color.lit), lit ? runLabel(lit) : pick, lit && state.pinned ? button('×', null, () => lightUp(null, true), { 'aria-label': say('Put out the light') }) : null));
  byId('legend').replaceChildren(...(state.rows.length > 1 ? items : []));
  byId('legend').hidden = state.rows.length < 2;
}
function runLabel(row) { return say('run {number}: {rate}, batch {batch}', { number: row.number, rate: rate(row.rate), batch: row.batch }); }

function drawByBatch() {
  const { intervals } = page.data;
  const speeds = intervals.some((one) => one.tokens_per_second !== null);
  const excess = intervals.some((one) => one.excess_percent !== null);
  const heads = [say('Batch'), say('Best learning rate'), say('80 % interval'), ...(excess ? [say('Expected loss')] : []), ...(speeds ? [say('Tokens a second')] : [])];
  const cells = (one) => [String(one.batch), rate(one.value), `${rate(one.low)} – ${rate(one.high)}`,
    ...(excess ? [one.excess_percent === 0 ? say('best') : say('{percent} % above the best batch', { percent: Number(one.excess_percent.toPrecision(2)) })] : []),
    ...(speeds ? [one.tokens_per_second === null ? '–' : amount(Math.round(one.tokens_per_second))] : [])];
  byId('by-batch').replaceChildren(...(intervals.length > 1 ? [h('details', {}, h('summary', {}, say('What each batch size is expected to give')),
    h('div', { class: 'scroll' }, h('table', {}, h('thead', {}, h('tr', {}, heads.map((name) => h('th', { scope: 'col', class: 'num' }, name)))),
      h('tbody', {}, intervals.map((one) => h('tr', { class: one.batch === chosenBatch() ? 'best' : '' }, cells(one).map((text) => h('td', { class: 'num' }, text))))))))] : []));
}

// ---- diagnosis -------------------------------------------------------------------------------------------------------
function finding(one) {
  const evidence = Object.entries(one.evidence || {}).map(([name, value]) => `${say(name.replaceAll('_', ' '))} ${value}`).join(', ');
  return h('div', { class: `finding ${one.severity}` }, h('p', {}, h('b', {}, say(one.label)), ' ', say(one.meaning)),
    one.advice ? h('p', { class: 'advice' }, h('b', {}, say('What to do: ')), say(one.advice)) : null, evidence ? h('p', { class: 'evidence' }, evidence) : null);
}
function drawDiagnosis() {
  const { data } = page;
  const named = (number, list) => h('div', { class: 'of-run' }, h('h3', {}, say('run {number}', { number }), ' ', roleName(number) ? h('mark', { class: role(number) }, roleName(number)) : null), list.map(finding));
  const groups = new Map();
  for (const one of data.diagnosis) groups.set(one.trial, [...(groups.get(one.trial) || []), one]);
  const first = [data.best, data.baseline].filter((number) => groups.has(number));
  const rest = [...groups.keys()].filter((number) => !first.includes(number));
  const many = rest.reduce((sum, number) => sum + groups.get(number).length, 0);
  const body = [
    ...new Set(first)].map((number) => named(number, groups.get(number)));
  if (rest.length) {
    body.push(h('details', { open: rest.length < 3 && !first.length }, h('summary', {}, say('Other runs with findings: {runs} (findings: {count})', { count: many, runs: rest.length })),
      h('p', { class: 'about' }, say('A search tries rates that are meant to be too high or too low: a finding here is no fault of the study.')), rest.slice(0, 100).map((number) => named(number, groups.get(number)))));
  }
  if (!data.diagnosis.length) body.push(h('p', { class: 'about' }, say('The monitor saw nothing wrong in any run.')));
  if (data.data_notes.length) body.push(h('h3', {}, say('The data')), h('ul', { class: 'notes' }, data.data_notes.map((note) => h('li', {}, say(note)))));
  byId('diagnosis').replaceChildren(...body);
}

// ---- answers, use, provenance ----------------------------------------------------------------------------------------
function drawAnswers() {
  const { answers } = page.data;
  byId('s-answers').hidden = !answers.length;
  const head = h('thead', {}, h('tr', {}, [say('Asked'), say('Its answer'), say('In the data')].map((text) => h('th', { scope: 'col' }, text))));
  byId('answers').replaceChildren(head, h('tbody', { translate: 'no' }, answers.map((one) => h('tr', {}, [one.asked, one.answer, one.expected].map((text) => h('td', { class: 'words' }, text))))));
}
function drawUse() {
  const { use } = page.data;
  const body = [];
  if (use.saved) body.push(h('p', { class: `about ${use.agrees === false ? 'wrong' : ''}` }, say(use.saved)));
  if (use.load.length) body.push(h('h3', {}, say('Load the tuned model')), code(use.load.join('\n')));
  if (use.merge) body.push(code(use.merge, say('Merge the adapter into its base')));
  if (use.recipe) body.push(h('h3', {}, say('Take the recipe elsewhere')), h('p', { class: 'about' }, say('Every hyperparameter of the chosen run is in this file:')), code(use.recipe));
  if (use.export) body.push(code(use.export, say('Write it for another trainer')), h('p', { class: 'about' }, say('`--to` also takes: '), use.formats.join(', ')));
  if (use.next) body.push(h('h3', {}, say('Go on searching')), code(use.next));
  if (use.again) body.push(h('h3', {}, say('Run this study again')), code(use.again));
  byId('use').replaceChildren(...body);
}
function drawProvenance() {
  const { facts, notes, lost } = page.data;
  byId('provenance').replaceChildren(
    facts.length ? h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, say(name)), h('dd', { translate: 'no' }, say(value))))) : h('p', { class: 'about' }, say('No facts of model, data or machine were given.')),
    ...(notes.length || lost.length ? [h('h3', {}, say('Notes')), h('ul', { class: 'notes' }, [...lost, ...notes].map((note) => h('li', {}, say(note))))] : []));
}

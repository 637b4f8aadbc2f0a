// The runs of the study: columns become rows, one run may be lit up everywhere, and the table sorts and unfolds.
const RANKED = { completed: true, stopped: true };
const state = { lit: null, pinned: false, rows: [], byNumber: new Map(), sort: 'rank', up: true, limit: 60, open: new Set() };

function readRuns() {
  const columns = page.data.trials;
  const word = (index) => (index < 0 ? '' : columns.words[index]);
  state.rows = columns.rate.map((_, i) => ({
    number: columns.number ? columns.number[i] : i, rate: columns.rate[i], batch: columns.batch[i], fidelity: columns.fidelities[columns.fidelity[i]], loss: columns.loss[i],
    state: columns.states[columns.state[i]], byHand: (columns.by_hand || []).includes(columns.number ? columns.number[i] : i), stage: word(columns.stage[i]), why: word(columns.why[i]), reason: word(columns.reason[i]),
    seconds: columns.seconds[i], metrics: Object.fromEntries(columns.metric_names.map((name, k) => [name, columns.metrics[k][i]])),
  }));
  state.byNumber = new Map(state.rows.map((row) => [row.number, row]));
}
// What a run measured that was stopped by hand is not the end of its schedule: it stands beside others only where it beat them all the same.
function ranks(row) { return Boolean(RANKED[row.state]) && typeof row.loss === 'number' && (!row.byHand || row.number === page.data.best); }
function role(number) {
  if (number === page.data.best) return 'best';
  return number === page.data.baseline ? 'baseline' : '';
}
function bestName() { return page.data.best_name === 'best' ? say('best') : say('chosen'); }
function roleName(number) { return { best: bestName(), baseline: say('usual default'), '': '' }[role(number)]; }
function stateWords(name) {
  return { completed: say('completed'), stopped: say('stopped early'), running: say('running'), diverged: say('diverged'), out_of_memory: say('out of memory'), failed: say('failed') }[name];
}
function objectiveOf(row) {
  const name = page.data.objective.name;
  return name === 'eval_loss' ? row.loss : row.metrics[name];
}

// ---- one run is lit up everywhere ------------------------------------------------------------------------------------
let waitingForLight = 0;
function lightUp(number, pin) {
  if (state.pinned && !pin) return;
  if (pin) { state.pinned = number !== null && !(state.pinned && state.lit === number); if (!state.pinned) number = null; }
  if (state.lit === number && !pin) return;
  state.lit = number;
  cancelAnimationFrame(waitingForLight);
  waitingForLight = requestAnimationFrame(() => { showLight(); });
}

// ---- the table -------------------------------------------------------------------------------------------------------
function rankOrder(a, b) {
  if (ranks(a) !== ranks(b)) return ranks(a) ? -1 : 1;
  if (!ranks(a)) return a.number - b.number;
  if (a.fidelity !== b.fidelity) return b.fidelity - a.fidelity;
  const [first, second] = [objectiveOf(a), objectiveOf(b)];
  const sign = page.data.objective.goal === 'maximize' ? -1 : 1;
  return typeof first === 'number' && typeof second === 'number' && first !== second ? sign * (first - second) : a.loss - b.loss;
}
function metricText(value) { return Math.abs(value) <= 1 ? value.toFixed(4) : short(value); }
function columnsOfTable() {
  const { data } = page;
  const own = data.trials.metric_names.map((name) => ({ key: `metric:${name}`, name: say(name.replaceAll('_', ' ')), kind: 'wide', value: (row) => row.metrics[name],
    show: (row) => (typeof row.metrics[name] === 'number' ? metricText(row.metrics[name]) : '–') }));
  const objective = own.find((column) => column.key === `metric:${data.objective.name}`);
  if (objective) objective.kind = '';
  const numbers = (list) => list.map((column) => ({ ...column, number: true }));
  return [
    ...(objective ? numbers([objective]) : []),
    ...numbers([{ key: 'loss', name: say('Validation loss'), kind: objective ? 'wide' : '', value: (row) => row.loss, show: (row) => figure4(row.loss) },
      { key: 'rate', name: say('Learning rate'), kind: '', value: (row) => row.rate, show: (row) => rate(row.rate) },
      { key: 'batch', name: say('Batch'), kind: '', value: (row) => row.batch, show: (row) => String(row.batch) },
      { key: 'fidelity', name: say('Length'), kind: 'wide', value: (row) => row.fidelity, show: (row) => percent(row.fidelity) }]),
    ...numbers(own.filter((column) => column !== objective).slice(0, 2)),
    { key: 'state', name: say('Outcome'), kind: 'wide', value: (row) => row.state, show: (row) => [h('i', { class: `dot state-${row.state}` }), row.byHand ? say('stopped by hand') : stateWords(row.state)] },
    { key: 'seconds', name: say('Time'), kind: 'wide', number: true, value: (row) => row.seconds, show: (row) => (row.seconds ? clock(row.seconds) : '–') },
  ];
}
function sortedRows(columns) {
  const rows = [...state.rows];
  if (state.sort === 'rank') return rows.sort(rankOrder);
  const value = state.sort === 'number' ? (row) => row.number : columns.find((column) => column.key === state.sort).value;
  return rows.sort((a, b) => compared(value(a), value(b)));
}
function compared(a, b) {
  const [none, other] = [a, b].map((v) => v === null || v === undefined || v === '');
  if (none || other) return none - other; // rows without a value stay last, both ways
  const order = typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true });
  return state.up ? order : -order;
}
function drawTable() {
  const columns = columnsOfTable();
  const rows = sortedRows(columns);
  const head = (key, name, attributes) => {
    const sort = state.sort === key ? { 'aria-sort': state.up ? 'ascending' : 'descending' } : {};
    const press = () => { [state.sort, state.up] = [key, state.sort === key ? !state.up : true]; drawTable(); };
    return h('th', { ...attributes, ...sort, scope: 'col' }, button(name, null, press));
  };
  const heads = [head('number', say('Run'), { class: 'run' }), ...columns.map((column) => head(column.key, column.name, { class: `${column.number ? 'num' : ''} ${column.kind}` }))];
  const body = h('tbody', {}, rows.slice(0, state.limit).flatMap((row) => tableRows(row, columns)));
  byId('runs').replaceChildren(h('thead', {}, h('tr', {}, heads)), body);
  const left = rows.length - state.limit;
  byId('more').replaceChildren(...(left > 0 ? [button(say('Show {count} more of {all} runs', { count: Math.min(left, 500), all: rows.length }), null, () => { state.limit += 500; drawTable(); })] : []));
}
function tableRows(row, columns) {
  const open = state.open.has(row.number);
  const toggle = () => { if (!state.open.delete(row.number)) state.open.add(row.number); drawTable(); };
  const name = roleName(row.number);
  const why = h('button', { type: 'button', class: 'why', 'aria-expanded': String(open), 'aria-label': say('Why run {number} was tried', { number: row.number }), on: { click: toggle } }, `${row.number}`, h('i', { class: 'caret' }));
  const mark = name ? h('mark', { class: role(row.number) }, name) : null;
  const cells = columns.map((column) => h('td', { class: `${column.number ? 'num' : ''} ${column.kind}` }, column.show(row)));
  const line = h('tr', { 'data-run': row.number, class: `${role(row.number)} ${state.lit === row.number ? 'lit' : ''}`,
    on: { mouseenter: () => lightUp(row.number), mouseleave: () => lightUp(null) } }, h('td', { class: 'run' }, why, h('i', { class: `dot narrow state-${row.state}` }), mark), cells);
  return open ? [line, h('tr', { class: 'unfolded' }, h('td', { colspan: columns.length + 1 }, details(row)))] : [line];
}
function details(row) {
  const facts = [[say('Outcome'), stateWords(row.state)], [say('Length'), say('{share} of a full run', { share: percent(row.fidelity) })], [say('Time'), row.seconds ? clock(row.seconds) : '–'],
    [say('Validation loss'), figure4(row.loss)], ...Object.entries(row.metrics).filter(([, value]) => typeof value === 'number').map(([name, value]) => [say(name.replaceAll('_', ' ')), short(value)])];
  const findings = page.data.diagnosis.filter((one) => one.trial === row.number);
  return [
    row.why || row.stage ? h('p', {}, h('b', {}, say('Why: ')), say(row.why || row.stage)) : null,
    row.reason ? h('p', {}, h('b', {}, say('How it ended: ')), say(row.reason)) : null,
    h('dl', { class: 'inline' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
    findings.map((one) => finding(one)),
  ];
}

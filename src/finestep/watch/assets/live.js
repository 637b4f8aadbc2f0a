// What is new in a running study, over the report's page: what runs, its curves, what the search believes, and the buttons.
// It shares the scope of the page's script. Text of others only ever becomes a text node.
const live = { now: null, points: new Map(), said: '', source: null, version: null, told: '', inks: new Map(), asked: new Set() };
const HERE = `/study/${LIVE.name}`;

function drawLive() {
  Object.assign(page.data.zh, LIVE.zh, live.now ? live.now.zh : {});
  const { now } = live;
  if (!now) return;
  put(byId('live-now'), liveNow(now));
  putRuns(now.running);
  put(byId('live-belief'), liveBelief(now));
  drawSteering(now);
  drawLiveCurves();
}
// News come a few times a second. What they do not change stays the same element: a button that is just being pressed, a text that is selected.
function put(place, children) {
  const fresh = h('div', {}, children);
  if (place.innerHTML !== fresh.innerHTML) place.replaceChildren(...fresh.childNodes);
}
function putRuns(running) {
  const place = byId('live-runs');
  const known = new Map([...place.children].map((element) => [Number(element.dataset.trial), element]));
  for (const run of running) {
    const [element, fresh] = [known.get(run.trial), liveRun(run)];
    known.delete(run.trial);
    if (!element) { place.append(fresh); continue; }
    element.querySelector('.live-ink').replaceWith(fresh.querySelector('.live-ink'));
    put(element.querySelector('.live-words'), [...fresh.querySelector('.live-words').childNodes]);
    putButton(element, element.querySelector('.live-stop'), fresh.querySelector('.live-stop'));
  }
  for (const element of known.values()) element.remove();
}
function putButton(place, known, fresh) {
  if (known && fresh) [known.disabled, known.textContent] = [fresh.disabled, fresh.textContent];
  else if (known) known.remove();
  else if (fresh) place.append(fresh);
}
function liveNow(now) {
  const words = { running: say('running'), paused: say('paused'), stopped: say('stopped'), ended: say('ended'), loading: say('loading') };
  const facts = now.state === 'loading' ? [say('the model and the data are loaded first')] : [];
  const spent = now.budget ? say('{spent} of {budget} full runs spent', { spent: figure3(now.spent), budget: figure3(now.budget) }) : say('{spent} full runs spent', { spent: figure3(now.spent) });
  facts.push(spent);
  if (now.left_s !== null && now.state === 'running') facts.push(say('at most {time} left', { time: clock(Math.round(now.left_s)) }));
  if (now.tokens_per_second !== null) facts.push(say('{number} tokens a second', { number: amount(Math.round(now.tokens_per_second)) }));
  if (now.memory_bytes !== null) facts.push(say('memory {size}', { size: `${Number((now.memory_bytes / 2 ** 30).toPrecision(3))} GiB` }));
  const bar = now.budget ? h('progress', { class: 'live-budget', max: now.budget, value: Math.min(now.spent, now.budget), 'aria-label': say('Budget') }) : null;
  return [h('p', { class: 'live-state' }, h('b', { class: `live-pill is-${now.state}` }, words[now.state] || now.state), ...facts.map((text) => h('span', {}, text))), ...(bar ? [bar] : [])];
}
function liveRun(run) {
  const title = [say('run {number}', { number: run.trial }), ' ', h('b', {}, say('learning rate {rate}, batch {batch}', { rate: rate(run.rate), batch: run.batch }))];
  const about = [run.share === 1 ? say('full length') : say('{share} of a full run', { share: percent(run.share) })];
  if (run.num_steps && run.step >= run.num_steps) about.push(say('all {steps} steps are done; now it is measured and saved', { steps: run.num_steps }));
  else if (run.step) about.push(run.num_steps ? say('step {step} of {steps}', { step: run.step, steps: run.num_steps }) : say('step {step}', { step: run.step }));
  else about.push(say('before its first step'));
  if (run.loss !== null) about.push(say('loss {value}', { value: figure4(run.loss) }));
  if (run.eval_loss !== null) about.push(say('validation loss {value}', { value: figure4(run.eval_loss) }));
  if (run.left_s !== null) about.push(say('{time} left', { time: clock(Math.max(1, Math.round(run.left_s))) }));
  const stopping = live.now.stopping.includes(run.trial);
  const stop = LIVE.can_steer && live.now.state === 'running'
    ? button(stopping ? say('stopping') : say('Stop this run'), null, () => command({ kind: 'stop_trial', trial: run.trial }), { class: 'live-stop', 'data-trial': run.trial, disabled: stopping }) : null;
  return h('div', { class: 'live-run', 'data-trial': run.trial }, h('i', { class: 'live-ink', 'data-ink': String(inkOf(run.trial)) }), h('div', { class: 'live-words' },
    h('p', {}, title, run.by_user ? h('mark', {}, say('yours')) : null), h('p', { class: 'about' }, about.join(' · ')),
    run.num_steps ? h('progress', { max: run.num_steps, value: run.step }) : null,
    run.why ? h('p', { class: 'about' }, say(run.why)) : null, run.notes.map((note) => h('p', { class: 'live-note' }, say(note)))), stop);
}
function liveBelief(now) {
  const lines = now.trouble ? [h('p', { class: 'warning' }, say(now.trouble))] : [];
  if (now.sentence) lines.push(h('p', {}, h('b', {}, say('The search believes: ')), say(now.sentence)));
  const rows = page.data.intervals || [];
  if (rows.length) lines.push(h('p', { class: 'about' }, rows.map((one) => say('batch {batch}: best rate between {low} and {high}', { batch: one.batch, low: rate(one.low), high: rate(one.high) })).join('; ')));
  if (now.next && now.state === 'running') lines.push(h('p', {}, h('b', {}, say('It would try next: ')), say('learning rate {rate}, batch {batch}', { rate: rate(now.next.rate), batch: now.next.batch }), ', ', say(now.next.length), h('span', { class: 'about' }, ' (', say(now.next.why), ')')));
  if (now.state === 'ended' && now.next_command) lines.push(code(now.next_command, say('Go on with')));
  if (now.state === 'stopped' && now.command) lines.push(code(now.command, say('Go on with')));
  return lines;
}
function figure3(value) { return String(Number(value.toPrecision(3))); }

// ---- curves as they come ---------------------------------------------------------------------------------------------
const INKS = ['accent', 'lit', 'baseline', 'good', 'bad', 'running', 'warn', 'soft'];
// A run keeps its ink while it runs; the next one takes the first that is free.
function inkOf(trial) {
  const running = live.now ? live.now.running.map((run) => run.trial) : [];
  for (const known of live.inks.keys()) if (known !== trial && !running.includes(known)) live.inks.delete(known);
  if (!live.inks.has(trial)) {
    const taken = new Set(live.inks.values());
    live.inks.set(trial, Math.max(0, INKS.findIndex((_, i) => !taken.has(i))));
  }
  return live.inks.get(trial);
}
function ink(trial) { return getComputedStyle(root).getPropertyValue(`--${INKS[inkOf(trial)]}`).trim(); }
function smoothed(rows) {
  const span = Math.max(1, rows.length * 0.05);
  const beta = 1 - 2 / (span + 1);
  let [mean, weight] = [0, 0];
  return rows.map((row) => {
    if (row[2] === null) return null;
    mean = beta * mean + (1 - beta) * row[2];
    weight = beta * weight + (1 - beta);
    return mean / weight;
  });
}
function drawLiveCurves() {
  const drawn = [...live.points].filter(([, rows]) => rows.length);
  byId('live-curves').hidden = !drawn.length;
  if (!drawn.length) return;
  const running = new Set(live.now ? live.now.running.map((run) => run.trial) : []);
  const place = drawn.every(([, rows]) => rows[rows.length - 1][1] > 0) ? 1 : 0;
  const line = { type: 'line', showSymbol: false, connectNulls: false, silent: true };
  const single = (rows) => rows.length < 3;
  figure('live-curves', {
    grid: { left: 58, right: 18, top: 34, bottom: 50 },
    xAxis: axis(place ? say('training tokens') : say('optimizer steps'), { splitLine: { show: false }, axisLabel: { color: page.color.soft, fontSize: 11.5, hideOverlap: true, formatter: amount } }),
    yAxis: axis('', { ...yName(say('loss (nats)')), scale: true, axisLine: { show: false } }),
    series: drawn.flatMap(([trial, rows]) => {
      const smooth = smoothed(rows);
      const color = running.has(trial) ? ink(trial) : page.color.other;
      return [{ ...line, showSymbol: single(rows), data: rows.map((row) => [row[place], row[2]]), lineStyle: { color, width: 1, opacity: 0.3 }, itemStyle: { color } },
        { ...line, name: `run ${trial}`, data: rows.map((row, i) => [row[place], smooth[i]]), lineStyle: { color, width: 2.4 }, itemStyle: { color } }];
    }),
  });
  for (const element of document.querySelectorAll('.live-ink')) element.style.background = getComputedStyle(root).getPropertyValue(`--${INKS[Number(element.dataset.ink)]}`);
  byId('live-curves').dataset.points = String(drawn.reduce((sum, [, rows]) => sum + rows.length, 0));
}
function takePoints(found) {
  for (const [trial, rows] of Object.entries(found)) {
    const known = live.points.get(Number(trial)) || [];
    known.push(...rows);
    live.points.set(Number(trial), known.length > 2400 ? known.filter((_, i) => i % 2 === 0 || i > known.length - 50) : known);
  }
  while (live.points.size > 12) live.points.delete(live.points.keys().next().value);
}

// ---- commands --------------------------------------------------------------------------------------------------------
function drawSteering(now) {
  const place = byId('live-steer');
  const key = `${now.state} ${page.language}`;
  put(byId('live-said'), now.steering.slice(-3).map((text) => h('li', {}, say(text))));
  byId('live-told').textContent = now.steering.includes(live.told) ? '' : say(live.told);
  if (place.dataset.key === key) return; // a form that somebody fills in stays
  place.dataset.key = key;
  place.replaceChildren(...(LIVE.can_steer && ['loading', 'running', 'paused'].includes(now.state) ? steeringForms(now) : []));
}
function steeringForms(now) {
  const field = (name, label, attributes) => h('label', {}, label, h('input', { name, required: true, ...attributes }));
  const form = (text, fields, read) => h('form', { on: { submit: (event) => { event.preventDefault(); command(read(new FormData(event.target))); } } }, fields, h('button', { type: 'submit' }, text));
  const number = (data, name) => Number(data.get(name));
  return [
    now.state === 'paused' ? button(say('Go on'), null, () => command({ kind: 'resume' })) : button(say('Pause'), null, () => command({ kind: 'pause' })),
    button(say('Stop the study'), null, () => { if (window.confirm(say('Stop the study? The same command goes on from here.'))) command({ kind: 'stop' }); }),
    form(say('Add a run'), [field('rate', say('learning rate'), { inputmode: 'decimal', size: 8, placeholder: '1e-4' }), field('batch', say('batch'), { type: 'number', min: 1, value: 16 }), field('length', say('share of a full run'), { type: 'number', min: 0.01, max: 1, step: 0.01, value: 1 })],
      (data) => ({ kind: 'add', learning_rate: number(data, 'rate'), effective_batch_size: number(data, 'batch'), fidelity: number(data, 'length') })),
    form(say('Set the budget'), [field('budget', say('full runs'), { type: 'number', min: 0.1, step: 0.1, value: now.budget || 6 })], (data) => ({ kind: 'extend', full_runs: number(data, 'budget') })),
  ];
}
async function command(wanted) {
  const told = byId('live-told');
  told.textContent = say(live.told = 'asking');
  try {
    const answer = await fetch(`${HERE}/commands`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(wanted) });
    const found = answer.headers.get('content-type').includes('json') ? await answer.json() : { error: { message: await answer.text() } };
    Object.assign(page.data.zh, found.zh);
    live.told = found.error ? found.error.law || found.error.message : found.said;
  } catch { live.told = 'the study cannot be reached'; }
  told.textContent = say(live.told);
}

// ---- news ------------------------------------------------------------------------------------------------------------
async function takeReport() {
  const answer = await fetch(`${HERE}/data`);
  if (answer.ok) update(await answer.json());
}
async function takeCurve(number) {
  if (number === null || live.asked.has(number) || page.data.curves.some((curve) => curve.trial === number)) return;
  live.asked.add(number);
  const answer = await fetch(`${HERE}/curve/${number}`);
  const curve = answer.ok ? await answer.json() : {};
  if (!curve.step) return;
  page.data.curves.push({ ...curve, shown: false });
  drawCourses();
}
function takeState(now) {
  const before = live.version;
  live.now = now;
  root.classList.toggle('is-live', ['loading', 'running', 'paused'].includes(now.state));
  live.version = now.version;
  drawLive();
  if (before !== null && before !== now.version) takeReport().then(drawLive);
}
function listen() {
  live.source = new EventSource(`${HERE}/events`);
  live.source.onopen = () => { live.points.clear(); byId('live-lost').hidden = true; };
  live.source.onerror = () => { byId('live-lost').hidden = false; };
  live.source.addEventListener('points', (event) => { takePoints(JSON.parse(event.data)); drawLiveCurves(); });
  live.source.addEventListener('state', (event) => takeState(JSON.parse(event.data)));
}

byId('hero').after(h('section', { id: 's-live', class: 'live scripted', 'aria-live': 'off' },
  LIVE.several ? h('p', {}, h('a', { href: '/' }, '←')) : null, h('div', { id: 'live-now' }), h('p', { id: 'live-lost', class: 'warning', hidden: true }, say('The study’s page is not served any more; its report.html stays.')),
  h('div', { id: 'live-runs' }), h('div', { id: 'live-curves', class: 'chart', role: 'img', hidden: true }), h('div', { id: 'live-belief' }),
  h('div', { id: 'live-steer' }), h('p', { id: 'live-told', role: 'status' }), h('ul', { id: 'live-said', class: 'notes' })));
document.querySelector('footer').dataset.say = 'finestep serves this page from the files of the study. The report.html in its folder is one file that needs no network.';
const lightUpOnly = lightUp;
lightUp = (number, ...rest) => { lightUpOnly(number, ...rest); takeCurve(number); };
const redrawOnly = redraw;
redraw = () => { redrawOnly(); drawLive(); };
listen();

// Figures 1 and 2: the result over the learning rate with what the search expects, and the measured pairs as a map.
const CROSS = 'path://M0,14L14,0L50,36L86,0L100,14L64,50L100,86L86,100L50,64L14,100L0,86L36,50Z';
const charts = {};
const shown = { measure: null, batch: null, map: 0 };

function readColors() {
  const style = getComputedStyle(root);
  const names = ['card', 'ink', 'soft', 'rule', 'accent', 'accent-wash', 'baseline', 'other', 'faint', 'lit', 'bad', 'bad-wash', 'q-low', 'q-high', 'q-low-ink', 'q-high-ink'];
  page.color = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  page.color.font = getComputedStyle(document.body).fontFamily;
}
function runColor(number) {
  const { color } = page;
  return { best: color.accent, baseline: color.baseline, '': number === state.lit ? color.lit : color.other }[role(number)];
}
function narrow() { return root.clientWidth < 640; }
function axis(name, changes) {
  const { color } = page;
  return { type: 'value', name, nameLocation: 'middle', nameGap: 32, nameTextStyle: { color: color.soft, fontSize: 12 },
    axisLine: { show: true, lineStyle: { color: color.rule } }, axisTick: { show: false },
    axisLabel: { color: color.soft, fontSize: 11.5, hideOverlap: true }, splitLine: { lineStyle: { color: color.rule } }, ...changes };
}
function fixedTicks(values, show, changes) {
  return { axisTick: { show: false, customValues: values }, axisLabel: { color: page.color.soft, fontSize: 11.5, hideOverlap: true, customValues: values, formatter: show, ...changes } };
}
function yName(text) {
  return { name: text, nameLocation: 'end', nameGap: 12, nameTextStyle: { color: page.color.soft, fontSize: 12, align: 'left', padding: [0, 0, 0, -46] } };
}
function tooltip(changes) {
  const { color } = page;
  return { renderMode: 'richText', confine: true, backgroundColor: color.card, borderColor: color.rule, borderWidth: 1, textStyle: { color: color.ink, fontSize: 12, fontFamily: color.font }, ...changes };
}
function figure(id, option) {
  if (!charts[id]) {
    charts[id] = echarts.init(byId(id), null, { devicePixelRatio: Math.max(2, window.devicePixelRatio) });
    charts[id].on('mouseover', (event) => { const run = runOf(event); if (run !== null) lightUp(run); });
    charts[id].on('mouseout', (event) => { if (runOf(event) !== null) lightUp(null); });
    charts[id].on('click', (event) => { const run = runOf(event); if (run !== null) lightUp(run, true); });
  }
  charts[id].setOption({ animation: false, textStyle: { fontFamily: page.color.font }, ...option }, true);
}
function runOf(event) {
  if (event.data && event.data.run !== undefined) return event.data.run;
  const found = /^run (\d+)$/.exec(event.seriesName || '');
  return found ? Number(found[1]) : null;
}

// ---- 1: the result over the rate -------------------------------------------------------------------------------------
function measures() {
  const { objective, trials } = page.data;
  const names = trials.metric_names.filter((name) => state.rows.some((row) => typeof row.metrics[name] === 'number'));
  const metric = names.includes(objective.name) ? [[objective.name, say(objective.name.replaceAll('_', ' '))]] : [];
  const others = names.filter((name) => name !== objective.name && page.data.shares.includes(name)).map((name) => [name, say(name.replaceAll('_', ' '))]);
  return [...metric, ['eval_loss', say('validation loss')], ...others];
}
function measured(row) { return shown.measure === 'eval_loss' ? row.loss : row.metrics[shown.measure]; }
function basinRange(rows) {
  if (shown.measure === 'eval_loss') return page.data.basin.y_range;
  const values = rows.map(measured);
  const [low, high] = [lowest(values), highest(values)];
  const room = Math.max(0.1 * (high - low), 1e-3);
  const isShare = low >= 0 && high <= 1;
  return [isShare ? Math.max(0, low - room) : low - room, isShare ? Math.min(1.02, high + 1.4 * room) : high + 1.4 * room];
}
function drawBasin() {
  const { data, color } = page;
  const choices = measures();
  if (!choices.some(([name]) => name === shown.measure)) shown.measure = choices[0][0];
  const batches = data.basin.batches;
  if (!batches.includes(shown.batch)) shown.batch = chosenBatch();
  byId('basin-controls').replaceChildren(
    ...(choices.length > 1 ? [chooser(say('Show'), choices, shown.measure, (name) => { shown.measure = name; drawBasin(); })] : []),
    ...(batches.length > 1 ? [chooser(say('Batch in focus'), batches.slice(0, 12).map((batch) => [batch, String(batch)]), shown.batch, (batch) => { shown.batch = batch; drawBasin(); })] : []));
  const rows = state.rows.filter((row) => ranks(row) && typeof measured(row) === 'number');
  const fallen = state.rows.filter((row) => !ranks(row) && row.state !== 'running');
  byId('basin').hidden = !rows.length && !fallen.length;
  const strip = fallen.length ? 30 : 0;
  const [low, high] = basinRange(rows);
  const x = { min: data.basin.x_range[0], max: data.basin.x_range[1] };
  const onlyDiverged = fallen.every((row) => row.state === 'diverged');
  figure('basin', {
    grid: [{ left: 58, right: 18, top: strip + 40, bottom: 50 }, { left: 58, right: 18, top: 4, height: strip || 1, show: strip > 0, backgroundColor: color['bad-wash'], borderWidth: 0 }],
    xAxis: [axis(say('peak learning rate'), { ...x, ...fixedTicks(data.basin.x_ticks, rateTick) }), { type: 'value', ...x, gridIndex: 1, show: false }],
    yAxis: [axis('', { min: low, max: high, ...yName(choices.find(([name]) => name === shown.measure)[1] + (shown.measure === 'eval_loss' ? ` (${say('nats')})` : '')), axisLine: { show: false },
      axisLabel: { color: color.soft, fontSize: 11.5, show: rows.length > 0, showMinLabel: false, showMaxLabel: false, formatter: (v) => `${Number(v.toPrecision(4))}` } }),
    { type: 'value', gridIndex: 1, min: 0, max: 1, show: strip > 0, axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
      axisLabel: { color: color.bad, fontSize: 11, customValues: [0.5], formatter: () => (onlyDiverged ? say('diverged') : say('no result')) } }],
    tooltip: tooltip({ trigger: 'item', formatter: basinTip }),
    series: [...beliefSeries(low, high), ...pathSeries(rows, high), pointSeries('others', rows.filter((row) => !role(row.number)), high, 3), litSeries(high),
      pointSeries('baseline', rows.filter((row) => role(row.number) === 'baseline'), high, 7), pointSeries('best', rows.filter((row) => role(row.number) === 'best'), high, 8), fallenSeries(fallen)],
  });
}
function chosenBatch() {
  const best = state.byNumber.get(page.data.best);
  return best ? best.batch : page.data.basin.batches[0];
}
function beliefOf() { return shown.measure === page.data.objective.name ? page.data.belief.find((curve) => curve.batch === shown.batch) : undefined; }
function beliefSeries(low, high) {
  const { data, color } = page;
  const interval = data.intervals.find((one) => one.batch === shown.batch);
  const curve = beliefOf();
  const series = [];
  if (interval) {
    const label = { color: color.accent, fontSize: 11.5, position: 'insideTop', distance: 6, formatter: narrow() ? '80 %' : say('best rate: 80 % sure it is in here'), textBorderColor: color.card, textBorderWidth: 3 };
    series.push({ type: 'line', data: [], silent: true, markArea: { silent: true, itemStyle: { color: color.accent, opacity: 0.09 }, label,
      data: [[{ xAxis: Math.log10(interval.low) }, { xAxis: Math.log10(interval.high) }]] } });
  }
  if (!curve) return series;
  const line = curve.points.map(([r, value]) => [Math.log10(r), value]);
  if (data.settled) series.push({ type: 'custom', silent: true, clip: true, z: 1, data: [[0]], encode: { x: -1, y: -1 }, renderItem: (_, api) => band(curve, low, high, api) });
  series.push({ type: 'line', data: line, smooth: 0.3, showSymbol: false, silent: true, clip: true, z: 2, lineStyle: { color: color.accent, width: 2, opacity: 0.75, type: data.settled ? 'solid' : 'dashed' } });
  return series;
}
function band(curve, low, high, api) {
  const inside = (value) => Math.min(Math.max(value, low), high);
  const upper = curve.points.map(([r, , , top]) => api.coord([Math.log10(r), inside(top)]));
  const lower = curve.points.map(([r, , bottom]) => api.coord([Math.log10(r), inside(bottom)])).reverse();
  return { type: 'polygon', shape: { points: [...upper, ...lower] }, style: { fill: page.color.accent, opacity: 0.14 } };
}
function pathSeries(rows, high) {
  const full = highest(rows.map((row) => row.fidelity));
  const places = new Map();
  for (const row of rows.filter((one) => one.batch === shown.batch && one.fidelity === full)) places.set(row.rate, [...(places.get(row.rate) || []), measured(row)]);
  const path = [...places].sort((a, b) => a[0] - b[0]).map(([r, values]) => [Math.log10(r), Math.min(values.reduce((a, b) => a + b, 0) / values.length, high)]);
  return [{ type: 'line', data: path.length < 200 ? path : [], showSymbol: false, silent: true, z: 2, clip: true, lineStyle: { color: page.color.other, width: 1.5 } }];
}
function pointSeries(name, rows, high, z) {
  const { color } = page;
  const many = rows.length > 600;
  return { type: 'scatter', id: name, z, cursor: 'pointer', data: rows.map((row) => {
    const kind = role(row.number);
    const ink = runColor(row.number);
    const inFocus = kind || row.batch === shown.batch;
    const isShort = row.fidelity < 1;
    const value = measured(row);
    return { value: [Math.log10(row.rate), Math.min(value, high)], run: row.number, symbol: value > high ? 'arrow' : kind === 'baseline' ? 'diamond' : 'circle',
      symbolSize: kind === 'best' ? 17 : kind ? 15 : many ? 5 : isShort ? 8 : 10,
      itemStyle: { color: isShort && !kind ? color.card : ink, borderColor: kind ? color.card : isShort ? ink : color.card, borderWidth: kind ? 2 : 1.5, opacity: inFocus ? 1 : 0.4 },
      ...(kind ? { label: { show: true, position: labelPlace(Math.log10(row.rate), value, high, kind), distance: 8, color: color.ink, fontWeight: 600, fontSize: 12,
        formatter: `${roleName(row.number)} ${figure4(value)}`, textBorderColor: color.card, textBorderWidth: 3 } } : {}) };
  }) };
}
function labelPlace(x, value, high, kind) {
  const [left, right] = page.data.basin.x_range;
  const share = (x - left) / (right - left);
  const low = basinRange(state.rows.filter((row) => ranks(row) && typeof measured(row) === 'number'))[0];
  if (share < 0.25) return 'right';
  if (share > 0.75) return 'left';
  return kind === 'best' && (value - low) / (high - low) > 0.14 ? 'bottom' : 'top';
}
function litSeries(high) {
  const row = state.lit === null || role(state.lit) ? null : state.byNumber.get(state.lit);
  const { color } = page;
  const value = row && ranks(row) ? measured(row) : null;
  return { type: 'scatter', id: 'lit', z: 6, silent: true, symbolSize: 15, data: typeof value !== 'number' ? [] : [{ value: [Math.log10(row.rate), Math.min(value, high)],
    itemStyle: { color: color.lit, borderColor: color.card, borderWidth: 2 }, label: { show: true, position: 'top', distance: 7, color: color.ink, fontWeight: 600, fontSize: 12, formatter: `#${row.number} ${figure4(value)}`, textBorderColor: color.card, textBorderWidth: 3 } }] };
}
function fallenSeries(fallen) {
  const { color } = page;
  return { type: 'scatter', id: 'fallen', xAxisIndex: 1, yAxisIndex: 1, symbolSize: 12, z: 4, data: fallen.slice(0, 2000).map((row) => ({
    value: [Math.log10(row.rate), 0.5], run: row.number, symbol: row.state === 'diverged' ? CROSS : 'rect',
    itemStyle: row.state === 'diverged' ? { color: color.bad, opacity: row.batch === shown.batch ? 1 : 0.55 } : { color: color.card, borderColor: color.soft, borderWidth: 1.5, opacity: 1 } })) };
}
function basinTip({ data: item }) {
  const row = item && item.run !== undefined ? state.byNumber.get(item.run) : null;
  if (!row) return '';
  const first = ranks(row) ? `${figure4(measured(row))}${shown.measure === 'eval_loss' ? ` ${say('nats')}` : ''}` : stateWords(row.state);
  const cut = ranks(row) && measured(row) > basinRange(state.rows.filter(ranks))[1] ? `\n${say('above the drawn range')}` : '';
  const reason = ranks(row) ? '' : `\n${wrapped(say(row.reason))}`;
  return `${say('run {number}', { number: row.number })}${roleName(row.number) ? ` · ${roleName(row.number)}` : ''}: ${first}\n${say('learning rate {rate}, batch {batch}', { rate: rate(row.rate), batch: row.batch })}\n${say('{share} of a full run', { share: percent(row.fidelity) })}${cut}${reason}`.trim();
}
function wrapped(text) { return (text.match(/.{1,60}(\s|$)|.{60}/g) || [text]).slice(0, 6).join('\n'); }

// ---- 2: the map ------------------------------------------------------------------------------------------------------
function drawMap() {
  const { maps } = page.data;
  if (!hasMap()) return;
  byId('map-controls').replaceChildren(...(maps.length > 1 ? [chooser(say('Length of the runs'), maps.map((map, i) => [i, percent(map.fidelity)]), shown.map, (i) => { shown.map = i; drawMap(); })] : []));
  const map = maps[Math.min(shown.map, maps.length - 1)];
  const turned = (byId('map').clientWidth - 80) / Math.max(1, map.columns.length) < 58;
  byId('map').style.height = `${Math.min(520, (turned ? 140 : 110) + 74 * map.rows.length)}px`;
  if (charts.map) { charts.map.resize(); charts.map.clear(); } // the shapes of one map are not turned into those of another
  const names = new Map([...map.columns, ...map.rows]);
  figure('map', {
    grid: { left: 58, right: 18, top: 32, bottom: turned ? 76 : 52 },
    xAxis: axis(say('peak learning rate'), { min: map.x_range[0], max: map.x_range[1], splitLine: { show: false }, nameGap: turned ? 56 : 32,
      ...fixedTicks(map.columns.map((c) => c[0]), (v) => names.get(nearest(map.columns, v)), { rotate: turned ? 50 : 0, hideOverlap: !turned || map.columns.length > 24 }) }),
    yAxis: axis('', { min: map.y_range[0], max: map.y_range[1], splitLine: { show: false }, ...yName(say('effective batch (rows)')), axisLine: { show: false }, ...fixedTicks(map.rows.map((r) => r[0]), (v) => names.get(nearest(map.rows, v))) }),
    tooltip: tooltip({ trigger: 'item', formatter: ({ data: item }) => mapTip(item.cell) }),
    series: [{ type: 'custom', clip: true, encode: { x: [0, 1], y: [2, 3] }, renderItem: (_, api) => mapCell(map.cells[api.value(4)], api),
      data: map.cells.map((cell, i) => ({ value: [cell.x0, cell.x1, cell.y0, cell.y1, i], cell, run: cell.trials[0] })) }],
  });
}
function hasMap() { return page.data.maps.some((map) => map.rows.length > 1 && map.cells.length > 2); }
function nearest(pairs, value) { return pairs.reduce((a, b) => (Math.abs(b[0] - value) < Math.abs(a[0] - value) ? b : a))[0]; }
function mapCell(cell, api) {
  const { color } = page;
  const [left, top] = api.coord([cell.x0, cell.y1]);
  const [right, bottom] = api.coord([cell.x1, cell.y0]);
  const box = { x: left + 1.5, y: top + 1.5, width: right - left - 3, height: bottom - top - 3, r: 6 };
  const ranked = cell.quantile !== null;
  const fill = ranked ? mix(color['q-low'], color['q-high'], cell.quantile) : cell.kind === 'diverged' ? color['bad-wash'] : color.card;
  const ink = ranked ? (cell.quantile < 0.5 ? color['q-low-ink'] : color['q-high-ink']) : cell.kind === 'diverged' ? color.bad : color.soft;
  const best = cell.quantile === 0;
  const children = [{ type: 'rect', shape: box, style: { fill, stroke: best ? color.ink : color.rule, lineWidth: best ? 2.5 : 1 } }];
  if (!ranked) children.push(hatching(box, ink));
  const label = ranked ? cell.label : say(cell.label);
  const { text, upright, size } = fitted(ranked ? [label, label.split(' ')[0]] : [label, '×'], box);
  children.push({ type: 'text', x: box.x + box.width / 2, y: box.y + box.height / 2, rotation: upright ? Math.PI / 2 : 0,
    style: { text, fill: ink, align: 'center', verticalAlign: 'middle', font: `600 ${size}px ${color.font}`, stroke: ranked ? undefined : color['bad-wash'], lineWidth: ranked ? 0 : 4 } });
  return { type: 'group', children };
}
function fitted(texts, box) {
  // The longest text that fits, level rather than upright, and nothing rather than a part of a number.
  for (const text of texts) {
    for (const size of [12.5, 11]) {
      if (text.length * 0.62 * size + 4 <= box.width) return { text, size, upright: false };
    }
    if (text.length * 0.62 * 11 + 4 <= box.height && box.width >= 14) return { text, size: 11, upright: true };
  }
  return { text: '', size: 11, upright: false };
}
function hatching(box, stroke) {
  const lines = [];
  for (let start = -box.height; start < box.width; start += 9) {
    const [from, to] = [Math.max(2, 2 - start), Math.min(box.height - 2, box.width - 2 - start)];
    const [x, y] = [box.x + start, box.y + box.height];
    if (to > from) lines.push({ type: 'line', silent: true, style: { stroke, lineWidth: 1, opacity: 0.4 }, shape: { x1: x + from, y1: y - from, x2: x + to, y2: y - to } });
  }
  return { type: 'group', silent: true, children: lines };
}
function mapTip(cell) {
  const runs = cell.num_trials > 1 ? say('runs {numbers}', { numbers: cell.trials.join(', ') + (cell.num_trials > cell.trials.length ? ', …' : '') }) : say('run {number}', { number: cell.trials[0] });
  const what = cell.loss === null ? say(cell.label) : `${figure4(cell.loss)} ${say('nats')}${cell.spread === null ? '' : ` ${say('± {spread} over seeds', { spread: cell.spread.toFixed(4) })}`}`;
  const lost = cell.num_fallen && cell.loss !== null ? `\n${say('{fallen} of {all} without a result', { fallen: cell.num_fallen, all: cell.num_trials })}` : '';
  return `${runs}: ${what}\n${say('learning rate {rate}, batch {batch}', { rate: rate(cell.learning_rate), batch: cell.batch })}${lost}`;
}

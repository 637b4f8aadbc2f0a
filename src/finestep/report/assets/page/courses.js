// Figures 3 and 4: loss, gradient norm and learning rate as training went on. Grey, but for the chosen run, the usual default and the lit one.
const RING = 'path://M50,0A50,50 0 1,0 50,100A50,50 0 1,0 50,0ZM50,26A24,24 0 1,1 50,74A24,24 0 1,1 50,26Z';
const course = { x: null, y: 'linear', hidden: new Set() };

function xAxes() {
  const all = { tokens: { name: say('training tokens'), choice: say('tokens'), show: amount }, step: { name: say('optimizer steps'), choice: say('steps'), show: amount }, seconds: { name: say('time in training'), choice: say('time'), show: clock } };
  const has = (key) => key === 'step' || page.data.curves.some((curve) => highest(curve[key].map((v) => v || 0)) > 0);
  return Object.fromEntries(Object.entries(all).filter(([key]) => has(key)));
}
function drawnCurves() { return page.data.curves.filter((curve) => curve.shown || role(curve.trial) || curve.trial === state.lit || course.all); }
function hasCurves() { return page.data.curves.some((curve) => curve.step.length > 1 || curve.evals.length > 1); }
function hasGradients() { return page.data.curves.some((curve) => curve.grad_norm.some((v) => v !== null) || curve.rate.some((v) => v !== null)); }
function drawCourses() {
  const axes = xAxes();
  if (!axes[course.x]) course.x = Object.keys(axes)[0];
  if (hasCurves()) { drawCourseControls(axes); drawCurves(); }
  if (hasGradients()) drawGradients();
  if (charts.curves && charts.gradients) echarts.connect([charts.curves, charts.gradients]);
}
function drawCourseControls(axes) {
  const { curves } = page.data;
  const redo = (change) => { change(); drawCourses(); };
  const more = curves.length > curves.filter((curve) => curve.shown || role(curve.trial)).length;
  byId('curve-controls').replaceChildren(
    chooser(say('Over'), Object.entries(axes).map(([key, one]) => [key, one.choice]), course.x, (x) => redo(() => { course.x = x; })),
    chooser(say('Loss axis'), [['linear', say('linear')], ['log', say('log')]], course.y, (y) => redo(() => { course.y = y; })),
    ...(more ? [chooser(say('Runs'), [[false, say('the best few')], [true, say('all')]], Boolean(course.all), (all) => redo(() => { course.all = all; }))] : []));
}
function pairs(curve, values) { return curve[course.x].map((x, i) => [x, values[i]]); }
function logTicks(low, high) {
  const factors = high - low > 2.2 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let decade = Math.floor(low); decade <= high; decade += 1) for (const factor of factors) ticks.push(decade + Math.log10(factor));
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  return inside.length > 1 ? inside : [0, 1, 2, 3, 4].map((i) => low + (i / 4) * (high - low));
}
function logAxis(values, changes) {
  const powers = values.filter((v) => v !== null && v > 0).map(Math.log10);
  const [low, high] = [lowest(powers), highest(powers)];
  if (low > high) return axis('', { min: 0, max: 1, axisLine: { show: false }, axisLabel: { show: false }, ...changes });
  const room = Math.max(0.02, 0.05 * (high - low));
  return axis('', { min: low - room, max: high + room, axisLine: { show: false }, ...fixedTicks(logTicks(low - room, high + room), (v) => `${Number((10 ** v).toPrecision(2))}`), ...changes });
}
function logOf(value) { return value !== null && value > 0 ? Math.log10(value) : null; }
function clockTicks(longest) {
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400].find((s) => longest / s <= (narrow() ? 5 : 7)) || longest / 5;
  return Array.from({ length: Math.floor(longest / step) + 1 }, (_, i) => i * step);
}
function courseAxis(curves, changes, label) {
  const one = xAxes()[course.x];
  const ends = curves.flatMap((curve) => [...curve[course.x].slice(-1), ...curve.evals.map((e) => e[course.x])]).filter((v) => v !== null);
  const longest = Math.max(0, highest(ends)) || 1;
  const ticks = course.x === 'seconds' ? { customValues: clockTicks(longest) } : {};
  return axis(changes.gridIndex === 0 ? '' : one.name, { min: 0, max: longest, splitLine: { show: false },
    axisLabel: { color: page.color.soft, fontSize: 11.5, hideOverlap: true, showMaxLabel: course.x === 'seconds', formatter: one.show, ...ticks, ...label }, ...changes });
}
function lossRange(curves) {
  const calm = curves.filter((curve) => curve.state !== 'diverged');
  const of = calm.length ? calm : curves;
  const starts = of.flatMap((curve) => [...curve.smooth.filter((v) => v !== null), ...curve.evals.map((e) => e.loss).filter((v) => v !== null)]);
  const all = curves.flatMap((curve) => curve.loss.filter((v) => v !== null));
  if (!starts.length) return { max: null, cut: false };
  const low = lowest([...all, ...starts]);
  const max = highest(starts) + 0.12 * (highest(starts) - low) + 1e-9;
  const room = low - 0.06 * (max - low);
  return { max, min: low >= 0 ? Math.max(0, room) : room, cut: all.some((v) => v > max) }; // a loss that is never below zero has no axis below zero
}
function curveInk(curve) {
  const kind = role(curve.trial);
  const lit = curve.trial === state.lit;
  return { stroke: runColor(curve.trial), strong: Boolean(kind) || lit, z: kind === 'best' ? 6 : lit ? 7 : kind ? 5 : 2, dashed: kind === 'baseline' };
}
function drawCurves() {
  const curves = drawnCurves();
  const limit = lossRange(curves);
  const linear = course.y === 'linear';
  byId('curve-cut').textContent = linear && limit.cut ? say('Spikes above the drawn range are cut; the log axis shows all.') : '';
  const { color } = page;
  figure('curves', {
    grid: { left: 58, right: 18, top: 34, bottom: 50 },
    xAxis: courseAxis(curves, {}, {}),
    yAxis: linear ? axis('', { ...yName(say('loss (nats)')), axisLine: { show: false }, ...(limit.max !== null ? { min: limit.min, max: limit.max } : {}),
      axisLabel: { color: color.soft, fontSize: 11.5, showMinLabel: limit.min === 0, showMaxLabel: false, formatter: (v) => `${Number(v.toPrecision(3))}` } })
      : logAxis(curves.flatMap((curve) => [...curve.loss, ...curve.evals.map((e) => e.loss)]), yName(say('loss (nats)'))),
    tooltip: tooltip({ trigger: 'axis', axisPointer: { type: 'line', snap: false, lineStyle: { color: color.soft } },
      formatter: (p) => courseTip(p, (c, i) => say('{smooth} smoothed, {raw} raw', { smooth: short(c.smooth[i]), raw: short(c.loss[i]) })) }),
    series: curves.flatMap((curve) => curveSeries(curve, linear ? limit.max : null, linear ? (v) => v : logOf)),
  });
}
function curveSeries(curve, ceiling, scaled) {
  const ink = curveInk(curve);
  const line = { type: 'line', showSymbol: false, connectNulls: false, clip: true, name: `run ${curve.trial}`, triggerLineEvent: true };
  const series = [{ ...line, data: pairs(curve, curve.smooth.map(scaled)), z: ink.z, lineStyle: { color: ink.stroke, width: ink.strong ? 2.8 : 1.2, type: ink.dashed ? 'dashed' : 'solid', opacity: ink.strong ? 1 : 0.75 } }];
  if (ink.strong) series.push({ ...line, silent: true, data: pairs(curve, curve.loss.map(scaled)), z: 1, lineStyle: { color: ink.stroke, width: 1, opacity: 0.28 } });
  series.push({ type: 'scatter', name: line.name, symbol: RING, symbolSize: ink.strong ? 10 : 6, z: ink.z + 1, clip: true, itemStyle: { color: ink.stroke, opacity: 1 },
    data: curve.evals.filter((e) => e.loss !== null).map((e) => [e[course.x], scaled(e.loss)]) });
  if (curve.bad.length) {
    const [bad] = curve.bad;
    series.push({ type: 'scatter', name: line.name, symbol: CROSS, symbolSize: 12, z: 9, itemStyle: { color: page.color.bad, opacity: 1 }, data: [[bad[course.x], scaled(Math.min(lastLoss(curve, bad.step), ceiling === null ? Infinity : ceiling))]] });
  }
  return series;
}
function lastLoss(curve, step) {
  const before = curve.loss.filter((value, i) => value !== null && curve.step[i] <= step);
  return before.length ? before[before.length - 1] : 1;
}
function nearestIndex(xs, value) {
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < value) low = middle; else high = middle; }
  return Math.abs(xs[low] - value) <= Math.abs(xs[high] - value) ? low : high;
}
function courseTip(params, text) {
  const value = [params].flat()[0].axisValue;
  const order = (curve) => (role(curve.trial) === 'best' ? 0 : curve.trial === state.lit ? 1 : role(curve.trial) ? 2 : 3);
  const rows = drawnCurves().filter((curve) => curve.step.length && curve[course.x][curve.step.length - 1] >= 0.98 * value).sort((a, b) => order(a) - order(b)).slice(0, 6)
    .map((curve) => `${runLabel({ number: curve.trial, rate: curve.learning_rate, batch: curve.batch })}: ${text(curve, nearestIndex(curve[course.x], value))}`);
  return [`${xAxes()[course.x].show(value)} ${course.x === 'seconds' ? '' : xAxes()[course.x].choice}`.trim(), ...rows].join('\n');
}
function drawGradients() {
  const curves = drawnCurves();
  const { color } = page;
  const norms = curves.some((curve) => curve.grad_norm.some((v) => v !== null));
  const line = (curve, values, place) => {
    const ink = curveInk(curve);
    return { type: 'line', name: `run ${curve.trial}`, showSymbol: false, triggerLineEvent: true, connectNulls: false, xAxisIndex: place, yAxisIndex: place, data: pairs(curve, values), z: ink.z,
      lineStyle: { color: ink.stroke, width: ink.strong ? (place ? 2.2 : 1.4) : 1, opacity: ink.strong ? 1 : 0.6, type: ink.dashed && place ? 'dashed' : 'solid' } };
  };
  const upper = norms ? curves.map((curve) => line(curve, curve.grad_norm.map(logOf), 0)) : [];
  const clips = norms ? [...new Set(curves.map((curve) => curve.clip).filter((clip) => clip !== null))] : [];
  if (upper.length) {
    upper[0].markLine = { silent: true, symbol: 'none', data: clips.map((clip) => ({ yAxis: Math.log10(clip) })), lineStyle: { color: color.ink, type: 'dashed', width: 1.2 },
      label: { position: 'insideEndTop', color: color.ink, fontSize: 11.5, formatter: ({ value }) => say('clipped to {norm}', { norm: Number((10 ** value).toPrecision(3)) }), textBorderColor: color.card, textBorderWidth: 3 } };
  }
  const label = { color: color.soft, fontSize: 11.5, hideOverlap: true };
  byId('gradients').classList.toggle('low', !norms);
  if (charts.gradients) charts.gradients.resize();
  const height = byId('gradients').clientHeight;
  const lower = norms ? { left: 58, right: 18, bottom: 50, height: Math.round(0.17 * height) } : { left: 58, right: 18, top: 34, bottom: 50 };
  figure('gradients', {
    grid: [{ left: 58, right: 18, top: 34, height: norms ? Math.round(0.5 * height) : 0, show: false }, lower],
    axisPointer: { link: [{ xAxisIndex: 'all' }] },
    xAxis: [{ ...courseAxis(curves, { gridIndex: 0 }, { show: false }), show: norms }, courseAxis(curves, { gridIndex: 1 }, {})],
    yAxis: [{ ...logAxis([...curves.flatMap((curve) => curve.grad_norm), ...clips], yName(say('gradient norm'))), show: norms },
      axis('', { gridIndex: 1, min: 0, splitNumber: 2, ...yName(say('learning rate')), axisLine: { show: false }, axisLabel: { ...label, formatter: (v) => (v ? rate(v) : '0') } })],
    tooltip: tooltip({ trigger: 'axis', axisPointer: { type: 'line', snap: false, lineStyle: { color: color.soft } },
      formatter: (p) => courseTip(p, (c, i) => say('norm {norm}, learning rate {rate}', { norm: c.grad_norm[i] === null ? '–' : short(c.grad_norm[i]), rate: c.rate[i] === null ? '–' : rate(c.rate[i]) })) }),
    series: [...upper, ...curves.map((curve) => line(curve, curve.rate, 1))],
  });
  const best = curves.find((curve) => role(curve.trial) === 'best');
  byId('clipped').textContent = best && best.clip !== null && best.clipped_share !== null ? say('Of the steps of run {number}, {share} were clipped.', { number: best.trial, share: percent(best.clipped_share) }) : '';
}

// Draws the figures of the report from the JSON beside it. Text goes into the page as text nodes and into the charts as
// canvas text, never as HTML. `finestepReport.draw(data)` may be called again with newer data.
'use strict';
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const SYMBOLS = ['circle', 'rect', 'triangle', 'diamond', 'roundRect', 'pin'];
  const RING = 'path://M50,0A50,50 0 1,0 50,100A50,50 0 1,0 50,0ZM50,26A24,24 0 1,1 50,74A24,24 0 1,1 50,26Z';
  const CROSS = 'path://M0,14L14,0L50,36L86,0L100,14L64,50L100,86L86,100L50,64L14,100L0,86L36,50Z';
  const STATES = { diverged: 'diverged', out_of_memory: 'out of memory', failed: 'failed' };
  const X_AXES = {
    tokens: { name: 'training tokens', show: amount },
    step: { name: 'optimizer steps', show: amount },
    seconds: { name: 'seconds of training', show: clock },
  };
  const charts = {};
  const state = { x: 'tokens', y: 'linear', fidelity: 0, batches: new Set(), trials: new Set() };
  let data = null;
  let color = {};

  // ---- words and colours -------------------------------------------------------------------------------------------
  function padExponent(text) { return text.replace(/e([+-])(\d)$/, 'e$10$2'); }
  function rate(value) { return padExponent(value.toExponential(1)); }
  function rateTick(log10) { return padExponent(Number((10 ** log10).toPrecision(1)).toExponential(0)); }
  function loss(value) { return value === null ? '–' : value.toFixed(4); }
  function amount(value) {
    for (const [size, prefix] of [[1e12, ' T'], [1e9, ' B'], [1e6, ' M'], [1e3, ' k']]) {
      if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${prefix}`;
    }
    return `${Number(value.toPrecision(3))}`;
  }
  function clock(value) {
    if (value < 60) return `${Number(value.toPrecision(3))} s`;
    const minutes = Math.floor(value / 60);
    if (minutes < 60) return `${minutes}:${String(Math.round(value % 60)).padStart(2, '0')} min`;
    return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')} h`;
  }
  function percent(share) { return `${Number((100 * share).toPrecision(share < 0.1 ? 2 : 3))} %`; }
  function mix(from, to, share) {
    const part = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
    const blend = [0, 1, 2].map((i) => Math.round(part(from, i) + share * (part(to, i) - part(from, i))));
    return `rgb(${blend.join(',')})`;
  }
  function readColors() {
    const style = getComputedStyle(root);
    const names = ['card', 'ink', 'soft', 'rule', 'accent', 'bad', 'bad-wash', 'q-low', 'q-high', 'q-low-ink', 'q-high-ink',
      'lr-low', 'lr-mid', 'lr-high', 'b0', 'b1', 'b2', 'b3', 'b4', 'b5'];
    color = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    color.font = getComputedStyle(document.body).fontFamily;
  }
  function batchColor(index) { return color[`b${index % 6}`]; }
  function curveColor(curve) {
    const place = curve.color;
    return place < 0.5 ? mix(color['lr-low'], color['lr-mid'], 2 * place) : mix(color['lr-mid'], color['lr-high'], 2 * place - 1);
  }

  // ---- parts of a figure -------------------------------------------------------------------------------------------
  function axis(name, changes) {
    return {
      type: 'value', name, nameLocation: 'middle', nameGap: 32, nameTextStyle: { color: color.soft, fontSize: 12 },
      axisLine: { show: true, lineStyle: { color: color.rule } }, axisTick: { show: false },
      axisLabel: { color: color.soft, fontSize: 11.5, hideOverlap: true }, splitLine: { lineStyle: { color: color.rule } },
      ...changes,
    };
  }
  function fixedTicks(values, show, changes) {
    return { axisTick: { show: false, customValues: values },
      axisLabel: { color: color.soft, fontSize: 11.5, hideOverlap: true, customValues: values, formatter: show, ...changes } };
  }
  function yName(text) {
    return { name: text, nameLocation: 'end', nameGap: 12, nameTextStyle: { color: color.soft, fontSize: 12, align: 'left', padding: [0, 0, 0, -46] } };
  }
  function tooltip(changes) {
    return { renderMode: 'richText', confine: true, backgroundColor: color.card, borderColor: color.rule, borderWidth: 1,
      textStyle: { color: color.ink, fontSize: 12, fontFamily: color.font }, ...changes };
  }
  function figure(id, option) {
    if (!charts[id]) charts[id] = echarts.init(byId(id), null, { devicePixelRatio: Math.max(2, window.devicePixelRatio) });
    charts[id].setOption({ animation: false, textStyle: { fontFamily: color.font }, ...option }, true);
  }
  function mark(kind, stroke) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const shape = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    svg.setAttribute('viewBox', '0 0 14 10');
    svg.setAttribute('aria-hidden', 'true');
    const paths = { circle: 'M7,1a4,4 0 1,0 .01,0', rect: 'M3,1h8v8h-8z', triangle: 'M7,1l5,8h-10z', diamond: 'M7,0l5,5l-5,5l-5,-5z',
      line: 'M0,3.5h14v3h-14z' };
    shape.setAttribute('d', paths[kind] || paths.rect);
    shape.setAttribute('fill', stroke);
    svg.append(shape);
    return svg;
  }
  function button(text, pressed, press) {
    const element = document.createElement('button');
    element.type = 'button';
    element.textContent = text;
    if (pressed !== null) element.setAttribute('aria-pressed', String(pressed));
    element.addEventListener('click', press);
    return element;
  }
  function chooser(name, choices, chosen, choose) {
    const group = document.createElement('span');
    const box = document.createElement('div');
    group.className = 'group';
    for (const [value, text] of choices) box.append(button(text, value === chosen, () => choose(value)));
    group.append(name, box);
    return group;
  }
  function toggled(set, value) { if (!set.delete(value)) set.add(value); }

  // ---- 1: the basin ------------------------------------------------------------------------------------------------
  function drawBasin() {
    if (!byId('basin')) return; // the page of a single run has no basin and no map
    const { basin } = data;
    byId('basin-legend').replaceChildren(...basin.batches.map((batch, i) => {
      const chip = button(`batch ${batch}`, state.batches.has(batch), () => { toggled(state.batches, batch); drawBasin(); });
      chip.prepend(mark(SYMBOLS[i % 6], batchColor(i)));
      return chip;
    }));
    byId('basin').hidden = !basin.lines.length && !basin.fallen.length;
    const lines = basin.lines.filter((line) => state.batches.has(line.batch));
    const fallen = basin.fallen.filter((run) => state.batches.has(run.batch));
    const strip = basin.fallen.length ? 16 + 12 * Math.min(basin.batches.length, 4) : 0;
    const [low, high] = basin.y_range;
    const x = { min: basin.x_range[0], max: basin.x_range[1] };
    const roomy = byId('basin').clientWidth > 760;
    const rightmost = x.max - 0.12 * (x.max - x.min);
    const series = lines.flatMap((line) => basinLine(line, basin, high));
    series.push({
      type: 'scatter', xAxisIndex: 1, yAxisIndex: 1, symbolSize: 11, cursor: 'default',
      data: fallen.map((run) => ({
        value: [run.x, 0.5 + run.batch_index], run, symbol: run.state === 'diverged' ? CROSS : 'rect',
        itemStyle: run.state === 'diverged' ? { color: color.bad, opacity: 1 } : { color: color.card, borderColor: color.soft, borderWidth: 1.5, opacity: 1 },
        label: { show: roomy, position: run.x > rightmost ? 'left' : 'right', distance: 4, color: color.soft, fontSize: 10.5, formatter: `batch ${run.batch}` },
      })),
    });
    figure('basin', {
      grid: [
        { left: 58, right: 18, top: strip + 40, bottom: 50 },
        { left: 58, right: 18, top: 8, height: strip || 1, show: strip > 0, backgroundColor: color['bad-wash'], borderWidth: 0 },
      ],
      xAxis: [
        axis('peak learning rate', { ...x, ...fixedTicks(basin.x_ticks, rateTick) }),
        { type: 'value', ...x, gridIndex: 1, show: false },
      ],
      yAxis: [
        axis('', { min: low, max: high, ...yName('validation loss (nats)'), axisLine: { show: false },
          axisLabel: { color: color.soft, fontSize: 11.5, show: basin.lines.length > 0, showMinLabel: false, showMaxLabel: false, formatter: (v) => `${Number(v.toPrecision(4))}` } }),
        { type: 'value', gridIndex: 1, min: -0.2, max: basin.batches.length + 0.2, show: strip > 0, axisLine: { show: false }, axisTick: { show: false },
          splitLine: { show: false }, axisLabel: { color: color.bad, fontSize: 11, customValues: [basin.batches.length / 2], formatter: () => (basin.fallen.every((run) => run.state === 'diverged') ? 'diverged' : 'no result') } },
      ],
      tooltip: tooltip({ trigger: 'item', formatter: basinTip }),
      series,
    });
  }
  function basinLine(line, basin, ceiling) {
    const stroke = batchColor(line.batch_index);
    const full = line.fidelity === basin.fidelities[0];
    const role = (point) => (point.trial === basin.best ? 'best' : point.trial === basin.baseline ? 'baseline' : '');
    return [
      { type: 'line', data: line.path, showSymbol: false, silent: true, z: 2, clip: true,
        lineStyle: { color: stroke, width: full ? 2 : 1.5, type: full ? 'solid' : 'dashed', opacity: full ? 1 : 0.6 } },
      ...[false, true].map((marked) => ({ type: 'scatter', z: marked ? 6 : 4, symbol: SYMBOLS[line.batch_index % 6], cursor: 'default',
        data: line.points.filter((point) => Boolean(role(point)) === marked).map((point) => ({
          value: [point.x, Math.min(point.loss, ceiling)], point, symbol: point.off_scale ? 'arrow' : undefined,
          symbolSize: role(point) === 'best' ? 17 : role(point) ? 13 : full ? 10 : 8,
          itemStyle: { color: full || role(point) ? stroke : color.card, borderColor: role(point) === 'best' ? color.ink : full ? color.card : stroke,
            borderWidth: role(point) === 'best' ? 2.5 : 1.5, opacity: 1 },
          label: { show: Boolean(role(point)), position: role(point) === 'best' ? 'bottom' : 'top', distance: 8, color: color.ink,
            fontWeight: 600, fontSize: 12, formatter: () => `${role(point) === 'best' ? basin.best_name : 'baseline'} ${loss(point.loss)}`, textBorderColor: color.card, textBorderWidth: 3 },
        })) })),
    ];
  }
  function basinTip({ data: item }) {
    if (item.run) {
      const run = item.run;
      return `run ${run.trial}: ${STATES[run.state] || 'no loss'}\nlearning rate ${rate(10 ** run.x)}, batch ${run.batch}\n${wrapped(run.reason)}`.trim();
    }
    const point = item.point;
    const cut = point.off_scale ? '\nabove the drawn range' : '';
    return `run ${point.trial}: ${loss(point.loss)} nats\nlearning rate ${rate(10 ** point.x)}, batch ${point.batch}\n${percent(point.fidelity)} of the token budget${cut}`;
  }
  function wrapped(text) { return (text.match(/.{1,60}(\s|$)|.{60}/g) || [text]).slice(0, 6).join('\n'); }

  // ---- 2: the map --------------------------------------------------------------------------------------------------
  function drawMap() {
    if (!byId('map')) return;
    const { maps } = data;
    const controls = byId('map-controls');
    controls.replaceChildren();
    if (!maps.length) { byId('map').hidden = true; controls.hidden = true; return; }
    if (maps.length > 1) {
      controls.append(chooser('Share of the token budget', maps.map((map, i) => [i, percent(map.fidelity)]), state.fidelity,
        (i) => { state.fidelity = i; drawMap(); }));
    } else controls.hidden = true;
    const map = maps[Math.min(state.fidelity, maps.length - 1)];
    const width = byId('map').clientWidth;
    const turned = (width - 80) / Math.max(1, map.columns.length) < 58;
    byId('map').style.height = `${Math.min(460, 110 + 74 * map.rows.length)}px`;
    if (charts.map) charts.map.resize();
    if (charts.map) charts.map.clear(); // the shapes of one map are not turned into those of another
    const names = new Map([...map.columns, ...map.rows]);
    figure('map', {
      grid: { left: 58, right: 18, top: 32, bottom: turned ? 76 : 52 },
      xAxis: axis('peak learning rate', { min: map.x_range[0], max: map.x_range[1], splitLine: { show: false }, nameGap: turned ? 56 : 32,
        ...fixedTicks(map.columns.map((c) => c[0]), (v) => names.get(nearest(map.columns, v)), { rotate: turned ? 50 : 0, hideOverlap: !turned }) }),
      yAxis: axis('', { min: map.y_range[0], max: map.y_range[1], splitLine: { show: false }, ...yName('effective batch (rows)'),
        axisLine: { show: false }, ...fixedTicks(map.rows.map((r) => r[0]), (v) => names.get(nearest(map.rows, v))) }),
      tooltip: tooltip({ trigger: 'item', formatter: ({ data: item }) => mapTip(item.cell) }),
      series: [{ type: 'custom', clip: true, encode: { x: [0, 1], y: [2, 3] }, renderItem: (_, api) => mapCell(map.cells[api.value(4)], api),
        data: map.cells.map((cell, i) => ({ value: [cell.x0, cell.x1, cell.y0, cell.y1, i], cell })) }],
    });
  }
  function nearest(pairs, value) { return pairs.reduce((a, b) => (Math.abs(b[0] - value) < Math.abs(a[0] - value) ? b : a))[0]; }
  function mapCell(cell, api) {
    const [left, top] = api.coord([cell.x0, cell.y1]);
    const [right, bottom] = api.coord([cell.x1, cell.y0]);
    const shape = { x: left + 1.5, y: top + 1.5, width: right - left - 3, height: bottom - top - 3, r: 6 };
    const ranked = cell.quantile !== null;
    const fill = ranked ? mix(color['q-low'], color['q-high'], cell.quantile) : cell.kind === 'diverged' ? color['bad-wash'] : color.card;
    const ink = ranked ? (cell.quantile < 0.5 ? color['q-low-ink'] : color['q-high-ink']) : cell.kind === 'diverged' ? color.bad : color.soft;
    const best = cell.quantile === 0;
    const children = [{ type: 'rect', shape, style: { fill, stroke: best ? color.ink : color.rule, lineWidth: best ? 2.5 : 1 } }];
    if (!ranked) children.push(hatching(shape, ink));
    const { text, upright, size } = fitted(ranked ? [cell.label, cell.label.split(' ')[0]] : [cell.label, '×'], shape);
    children.push({ type: 'text', x: shape.x + shape.width / 2, y: shape.y + shape.height / 2, rotation: upright ? Math.PI / 2 : 0,
      style: { text, fill: ink, align: 'center', verticalAlign: 'middle',
        font: `600 ${size}px ${color.font}`, stroke: ranked ? undefined : color['bad-wash'], lineWidth: ranked ? 0 : 4 } });
    return { type: 'group', children };
  }
  function fitted(texts, shape) {
    // The longest text that fits, level rather than upright, and nothing rather than a part of a number.
    for (const text of texts) {
      for (const size of [12.5, 11]) {
        if (text.length * 0.62 * size + 4 <= shape.width) return { text, size, upright: false };
      }
      if (text.length * 0.62 * 11 + 4 <= shape.height && shape.width >= 14) return { text, size: 11, upright: true };
    }
    return { text: '', size: 11, upright: false };
  }
  function hatching(shape, stroke) {
    const lines = [];
    for (let start = -shape.height; start < shape.width; start += 9) {
      const [from, to] = [Math.max(2, 2 - start), Math.min(shape.height - 2, shape.width - 2 - start)];
      const [x, y] = [shape.x + start, shape.y + shape.height];
      if (to > from) {
        lines.push({ type: 'line', silent: true, style: { stroke, lineWidth: 1, opacity: 0.4 },
          shape: { x1: x + from, y1: y - from, x2: x + to, y2: y - to } });
      }
    }
    return { type: 'group', silent: true, children: lines };
  }
  function mapTip(cell) {
    const runs = cell.trials.length > 1 ? `runs ${cell.trials.join(', ')}` : `run ${cell.trials[0]}`;
    const what = cell.loss === null ? cell.label : `${loss(cell.loss)} nats${cell.spread === null ? '' : ` ± ${cell.spread.toFixed(4)} over seeds`}`;
    const lost = cell.num_fallen && cell.loss !== null ? `\n${cell.num_fallen} of ${cell.trials.length} without a result` : '';
    return `${runs}: ${what}\nlearning rate ${rate(cell.learning_rate)}, batch ${cell.batch}${lost}`;
  }

  // ---- 3 and 4: the course of training -----------------------------------------------------------------------------
  function shownCurves() { return data.curves.filter((curve) => state.trials.has(curve.trial)); }
  function drawControls() {
    byId('curve-controls').hidden = !data.curves.length;
    const redraw = (change) => { change(); drawControls(); drawCurves(); drawGradients(); };
    const axes = [['tokens', 'tokens'], ['step', 'steps'], ['seconds', 'seconds']];
    const all = new Set(data.curves.map((curve) => curve.trial));
    const main = new Set([data.basin.best, data.basin.baseline].filter((trial) => all.has(trial)));
    const pick = document.createElement('span');
    pick.className = 'group';
    const box = document.createElement('div');
    box.append(button('all', null, () => redraw(() => { state.trials = new Set(all); })));
    if (main.size) box.append(button(`${data.basin.best_name} and baseline`, null, () => redraw(() => { state.trials = new Set(main); })));
    box.append(button('none', null, () => redraw(() => { state.trials = new Set(); })));
    pick.append('Runs', box);
    byId('curve-controls').replaceChildren(
      chooser('Over', axes, state.x, (x) => redraw(() => { state.x = x; })),
      chooser('Loss axis', [['linear', 'linear'], ['log', 'log']], state.y, (y) => redraw(() => { state.y = y; })), pick);
    byId('curve-legend').replaceChildren(...data.curves.map((curve) => {
      const name = curve.trial === data.basin.best ? ` · ${data.basin.best_name}` : curve.trial === data.basin.baseline ? ' · baseline'
        : curve.state === 'completed' ? '' : ` · ${curve.state}`;
      const chip = button(curve.label + name, state.trials.has(curve.trial), () => redraw(() => toggled(state.trials, curve.trial)));
      chip.prepend(mark('line', curveColor(curve)));
      return chip;
    }));
  }
  function pairs(curve, values) { return curve[state.x].map((x, i) => [x, values[i]]); }
  function logTicks(low, high) {
    const factors = high - low > 2.2 ? [1] : [1, 2, 5];
    const ticks = [];
    for (let decade = Math.floor(low); decade <= high; decade += 1) {
      for (const factor of factors) ticks.push(decade + Math.log10(factor));
    }
    const inside = ticks.filter((tick) => tick >= low && tick <= high);
    return inside.length > 1 ? inside : [0, 1, 2, 3, 4].map((i) => low + (i / 4) * (high - low));
  }
  function logAxis(values, changes) {
    const powers = values.filter((v) => v !== null && v > 0).map(Math.log10);
    const [low, high] = [lowest(powers), highest(powers)];
    if (low > high) return axis('', { min: 0, max: 1, axisLine: { show: false }, axisLabel: { show: false }, ...changes });
    const room = Math.max(0.02, 0.05 * (high - low));
    const ticks = logTicks(low - room, high + room);
    return axis('', { min: low - room, max: high + room, axisLine: { show: false }, ...fixedTicks(ticks, (v) => `${Number((10 ** v).toPrecision(2))}`), ...changes });
  }
  function lowest(values) { return values.reduce((a, b) => Math.min(a, b), Infinity); }
  function highest(values) { return values.reduce((a, b) => Math.max(a, b), -Infinity); }
  function logOf(value) { return value !== null && value > 0 ? Math.log10(value) : null; }
  function clockTicks(longest) {
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400].find((s) => longest / s <= 7) || longest / 5;
    return Array.from({ length: Math.floor(longest / step) + 1 }, (_, i) => i * step);
  }
  function courseAxis(curves, changes, label) {
    const ends = curves.flatMap((curve) => [...curve[state.x].slice(-1), ...curve.evals.map((e) => e[state.x])]).filter((v) => v !== null);
    const longest = Math.max(0, highest(ends)) || 1;
    const ticks = state.x === 'seconds' ? { customValues: clockTicks(longest) } : {};
    return axis(changes.gridIndex === 0 ? '' : X_AXES[state.x].name, { min: 0, max: longest, splitLine: { show: false },
      axisLabel: { color: color.soft, fontSize: 11.5, hideOverlap: true, showMaxLabel: state.x === 'seconds', formatter: X_AXES[state.x].show, ...ticks, ...label }, ...changes });
  }
  function lossCeiling(curves) {
    const calm = curves.filter((curve) => curve.state !== 'diverged');
    const of = calm.length ? calm : curves;
    const starts = of.flatMap((curve) => [...curve.smooth.filter((v) => v !== null), ...curve.evals.map((e) => e.loss).filter((v) => v !== null)]);
    const all = curves.flatMap((curve) => curve.loss.filter((v) => v !== null));
    if (!starts.length) return { max: null, cut: false };
    const low = lowest([...all, ...starts]);
    const max = highest(starts) + 0.12 * (highest(starts) - low) + 1e-9;
    return { max, min: Math.max(0, low - 0.06 * (max - low)), cut: all.some((v) => v > max) };
  }
  function drawCurves() {
    const curves = shownCurves();
    const limit = lossCeiling(curves);
    const linear = state.y === 'linear';
    byId('curve-cut').textContent = linear && limit.cut ? 'Spikes above the drawn range are cut; the log axis shows all.' : '';
    figure('curves', {
      grid: { left: 58, right: 18, top: 34, bottom: 50 },
      xAxis: courseAxis(curves, {}, {}),
      yAxis: linear ? axis('', { ...yName('loss (nats)'), axisLine: { show: false }, ...(limit.max !== null ? { min: limit.min, max: limit.max } : {}),
        axisLabel: { color: color.soft, fontSize: 11.5, showMinLabel: false, showMaxLabel: false, formatter: (v) => `${Number(v.toPrecision(3))}` } })
        : logAxis(curves.flatMap((curve) => [...curve.loss, ...curve.evals.map((e) => e.loss)]), yName('loss (nats)')),
      tooltip: tooltip({ trigger: 'axis', axisPointer: { type: 'line', snap: false, lineStyle: { color: color.soft } }, formatter: (p) => courseTip(p, (c, i) => `${show(c.smooth[i])} smooth, ${show(c.loss[i])} raw`) }),
      series: curves.flatMap((curve) => curveSeries(curve, linear ? limit.max : null, linear ? (v) => v : logOf)),
    });
    byId('curves').hidden = !data.curves.length;
  }
  function curveSeries(curve, ceiling, scaled) {
    const stroke = curveColor(curve);
    const best = curve.trial === data.basin.best;
    const x = state.x === 'step' ? 'step' : state.x;
    const line = { type: 'line', showSymbol: false, connectNulls: false, silent: true, clip: true };
    return [
      { ...line, data: pairs(curve, curve.loss.map(scaled)), z: 2, lineStyle: { color: stroke, width: 1, opacity: 0.25 } },
      { ...line, data: pairs(curve, curve.smooth.map(scaled)), z: best ? 5 : 3,
        lineStyle: { color: stroke, width: best ? 3.2 : 1.8, type: curve.trial === data.basin.baseline ? 'dashed' : 'solid' } },
      { type: 'scatter', silent: true, symbol: RING, symbolSize: best ? 11 : 9, z: best ? 7 : 6, clip: true,
        itemStyle: { color: stroke, opacity: 1 }, data: curve.evals.filter((e) => e.loss !== null).map((e) => [e[x], scaled(e.loss)]) },
      { type: 'scatter', silent: true, symbol: CROSS, symbolSize: 12, z: 8, itemStyle: { color: color.bad, opacity: 1 },
        data: curve.bad.slice(0, 1).map((bad) => [bad[x], scaled(Math.min(lastLoss(curve, bad.step), ceiling === null ? Infinity : ceiling))]) },
    ];
  }
  function lastLoss(curve, step) {
    const before = curve.loss.filter((value, i) => value !== null && curve.step[i] <= step);
    return before.length ? before[before.length - 1] : 1;
  }
  function show(value) { return value === null ? 'not finite' : `${Number(value.toPrecision(4))}`; }
  function nearestIndex(xs, value) {
    let [low, high] = [0, xs.length - 1];
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < value) low = middle; else high = middle; }
    return Math.abs(xs[low] - value) <= Math.abs(xs[high] - value) ? low : high;
  }
  function courseTip(params, text) {
    const value = [params].flat()[0].axisValue;
    const rows = shownCurves().filter((curve) => curve.step.length && curve[state.x][curve[state.x].length - 1] >= 0.98 * value)
      .slice(0, 12).map((curve) => `${curve.label}: ${text(curve, nearestIndex(curve[state.x], value))}`);
    return [`${X_AXES[state.x].show(value)} ${state.x === 'tokens' ? 'tokens' : state.x === 'step' ? 'steps' : ''}`, ...rows].join('\n');
  }
  function drawGradients() {
    const curves = shownCurves();
    const line = (curve, values, place) => ({ type: 'line', showSymbol: false, silent: true, connectNulls: false, xAxisIndex: place, yAxisIndex: place,
      data: pairs(curve, values), z: curve.trial === data.basin.best ? 5 : 3,
      lineStyle: { color: curveColor(curve), width: curve.trial === data.basin.best ? (place ? 2.4 : 1.5) : 1.2, opacity: curve.trial === data.basin.best || place ? 1 : 0.6,
        type: curve.trial === data.basin.baseline && place ? 'dashed' : 'solid' } });
    const norms = curves.map((curve) => line(curve, curve.grad_norm.map(logOf), 0));
    const clips = [...new Set(curves.map((curve) => curve.clip).filter((clip) => clip !== null))];
    if (norms.length) {
      norms[0].markLine = { silent: true, symbol: 'none', data: clips.map((clip) => ({ yAxis: Math.log10(clip) })), lineStyle: { color: color.ink, type: 'dashed', width: 1.2 },
        label: { position: 'insideEndTop', color: color.ink, fontSize: 11.5, formatter: ({ value }) => `clipped to ${Number((10 ** value).toPrecision(3))}`, textBorderColor: color.card, textBorderWidth: 3 } };
    }
    const label = { color: color.soft, fontSize: 11.5, hideOverlap: true };
    const height = byId('gradients').clientHeight;
    figure('gradients', {
      grid: [{ left: 58, right: 18, top: 34, height: Math.round(0.5 * height) }, { left: 58, right: 18, bottom: 50, height: Math.round(0.17 * height) }],
      axisPointer: { link: [{ xAxisIndex: 'all' }] },
      xAxis: [courseAxis(curves, { gridIndex: 0 }, { show: false }), courseAxis(curves, { gridIndex: 1 }, {})],
      yAxis: [logAxis([...curves.flatMap((curve) => curve.grad_norm), ...clips], yName('gradient norm')),
        axis('', { gridIndex: 1, min: 0, splitNumber: 2, ...yName('learning rate'), axisLine: { show: false }, axisLabel: { ...label, formatter: (v) => (v ? rate(v) : '0') } })],
      tooltip: tooltip({ trigger: 'axis', axisPointer: { type: 'line', snap: false, lineStyle: { color: color.soft } },
        formatter: (p) => courseTip(p, (c, i) => `norm ${show(c.grad_norm[i])}, learning rate ${c.rate[i] === null ? '–' : rate(c.rate[i])}`) }),
      series: [...norms, ...curves.map((curve) => line(curve, curve.rate, 1))],
    });
    const shares = curves.filter((curve) => curve.clipped_share !== null && curve.clip !== null).map((curve) => `#${curve.trial} ${percent(curve.clipped_share)}`);
    byId('clipped').textContent = shares.length ? `Clipped steps: ${shares.join(', ')}` : '';
    byId('gradients').hidden = !data.curves.length;
  }

  // ---- the page ----------------------------------------------------------------------------------------------------
  function redrawAll() {
    readColors();
    drawBasin();
    drawMap();
    drawControls();
    drawCurves();
    drawGradients();
  }
  function draw(next) {
    data = next;
    state.batches = new Set(data.basin.batches);
    state.trials = new Set(data.curves.filter((curve) => curve.shown).map((curve) => curve.trial));
    redrawAll();
    echarts.connect([charts.curves, charts.gradients]);
  }
  function sortTable() {
    const table = byId('trials');
    if (!table) return;
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const press = button(head.textContent, null, () => {
        const up = head.getAttribute('aria-sort') !== 'ascending';
        for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        const value = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows].sort((a, b) => compared(value(a), value(b), head.dataset.sort, up));
        body.append(...rows);
      });
      head.replaceChildren(press);
    });
  }
  function compared(a, b, kind, up) {
    if (a === '' || b === '') return (a === '') - (b === '');  // rows without a value stay last, both ways
    const order = kind === 'number' ? Number(a) - Number(b) : a.localeCompare(b, 'en', { numeric: true });
    return up ? order : -order;
  }
  function copyCommand() {
    const press = byId('copy');
    if (!press) return;
    press.addEventListener('click', async () => {
      try {
        await navigator.clipboard.writeText(byId('command').textContent);
        press.textContent = 'Copied';
      } catch {
        getSelection().selectAllChildren(byId('command'));
        press.textContent = document.execCommand('copy') ? 'Copied' : 'Selected';
      }
      setTimeout(() => { press.textContent = 'Copy'; }, 1600);
    });
  }
  function resizeAll() { for (const chart of Object.values(charts)) chart.resize(); }

  root.classList.add('js');
  sortTable();
  copyCommand();
  draw(JSON.parse(byId('data').textContent));
  let [width, waiting] = [root.clientWidth, 0];
  window.addEventListener('resize', () => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => { resizeAll(); redrawAll(); }, 80);
  });
  dark.addEventListener('change', redrawAll);
  window.addEventListener('beforeprint', () => { root.classList.add('printing'); resizeAll(); redrawAll(); });
  window.addEventListener('afterprint', () => { root.classList.remove('printing'); resizeAll(); redrawAll(); });
  window.finestepReport = { draw };
})();

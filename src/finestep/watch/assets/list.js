// The list of studies: how each stands, and the best that it has found; asked again every few seconds.
'use strict';
(() => {
  const byId = (id) => document.getElementById(id);
  const first = JSON.parse(byId('data').textContent);
  const chinese = (navigator.language || 'en').toLowerCase().startsWith('zh');
  const say = (text) => (chinese && first.zh[text]) || text;
  const cell = (name, text, kind) => { const one = document.createElement(name); one.textContent = text; if (kind) one.className = kind; return one; };
  const rate = (value) => value.toExponential(1).replace(/e([+-])(\d)$/, 'e$10$2');
  function row(study) {
    const line = document.createElement('tr');
    const link = document.createElement('a');
    link.href = `/study/${study.id}`;
    link.textContent = study.name;
    link.title = study.folder;
    const head = cell('td', '');
    head.append(link);
    const { best } = study;
    line.append(head, cell('td', say(study.state)), cell('td', study.budget ? `${study.spent} / ${study.budget}` : String(study.spent), 'num'),
      cell('td', String(Object.values(study.trials || {}).reduce((a, b) => a + b, 0)), 'num wide'), cell('td', best ? `${rate(best.learning_rate)} × ${best.effective_batch_size}` : '–', 'num'),
      cell('td', best && best.eval_loss !== null ? best.eval_loss.toFixed(4) : '–', 'num'), cell('td', study.settled ? say('settled') : say('not settled'), 'wide'));
    return line;
  }
  function draw(studies) {
    byId('brow').textContent = say('finestep, live');
    const heads = [[say('Study'), ''], [say('State'), ''], [say('Full runs'), 'num'], [say('Runs'), 'num wide'], [say('Best rate × batch'), 'num'], [say('Validation loss'), 'num'], ['', 'wide']];
    const top = document.createElement('tr');
    top.append(...heads.map(([text, kind]) => cell('th', text, kind)));
    byId('studies').replaceChildren(top, ...studies.map(row));
  }
  draw(first.studies);
  setInterval(async () => { try { draw((await (await fetch('/studies')).json()).studies); } catch { /* the next time */ } }, 3000);
})();

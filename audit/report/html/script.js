// Filters and sorts the table. Without this its first rows are there, worst first,
// and all others as text.
(() => {
  'use strict';
  const $ = (id) => document.getElementById(id);
  const form = $('filter'), sort = $('sort'), mark = $('mark'), next = $('next'), rest = $('rest');
  const table = document.querySelector('table'), body = table.tBodies[0];
  const step = Number(table.dataset.step);
  const collator = new Intl.Collator('en', { numeric: true });
  let rows; // all of them, worst first
  let order, orderedBy = '1';
  let room = step;
  let chosen = null; // the class and the ends of a mark

  function element(name, text, className) {
    const e = document.createElement(name);
    e.textContent = text;
    if (className) e.className = className;
    return e;
  }

  function fromTable(tr) {
    const cells = [...tr.cells].map((td) => (td.querySelector('summary') ?? td).textContent);
    return { tr, rank: tr.className, cells, text: tr.textContent.toLowerCase() };
  }

  // A record is what Record in html.go writes.
  function fromRecord(record) {
    const [head, ...lines] = record.split('\n\t');
    const [rank, ...cells] = head.split('\t');
    const text = cells.slice(0, 5).concat(lines.map((line) => line.replace(/^\w+\t/, ''))).join('\n').toLowerCase();
    return { rank, cells, lines, text };
  }

  // Makes the row of a record, as parts.gohtml has it.
  function draw({ rank, cells: [state, left, ends, name, place, used], lines }) {
    const tr = element('tr', '', rank), names = element('td', ''), findings = element('td', '');
    const details = element('details', '');
    details.append(element('summary', name));
    for (const line of lines) {
      const [kind, check, text] = line.split('\t');
      if (text === undefined) {
        details.append(details.childNodes.length > 1 ? '\n' + line : line);
        continue;
      }
      const note = element('p', '', kind);
      note.append(...(check ? [element('code', check), ' '] : []), text);
      findings.append(note);
    }
    if (details.childNodes.length > 1) names.append(details);
    tr.append(element('td', state), element('td', left, used && 'p' + parseInt(used)), element('td', ends), names, element('td', place), findings);
    return tr;
  }

  function load() {
    if (rows) return;
    const records = rest ? rest.querySelector('pre').textContent.trimEnd().split(/\n(?!\t)/) : [];
    rows = order = [...[...body.rows].map(fromTable), ...records.map(fromRecord)];
    rows.forEach((one, i) => { one.i = i; });
  }

  // Sorts by a column, counted from 1, downward if negative. What has no end or no
  // name comes last in both directions.
  function sortBy(value) {
    const column = Math.abs(value), down = Math.sign(value);
    if (column === 1) return down > 0 ? rows : rows.toReversed();
    const compare = column === 3 ? (a, b) => (a < b ? -1 : 1) : collator.compare;
    return rows.toSorted((one, other) => {
      const a = one.cells[column - 1], b = other.cells[column - 1];
      if (a === b) return one.i - other.i;
      if (!a || !b) return a ? -1 : 1;
      return down * compare(a, b) || one.i - other.i;
    });
  }

  function show() {
    load();
    if (sort.value !== orderedBy) order = sortBy(Number(orderedBy = sort.value));
    const words = $('text').value.toLowerCase().split(/\s+/).filter(Boolean);
    const ranks = new Set([...form.querySelectorAll('[name=rank]:checked')].map((box) => box.value));
    const state = $('state').value;
    const inMark = ({ rank, cells }) => !chosen || (rank === chosen.rank && cells[2] >= chosen.first && cells[2] <= chosen.last);
    const matching = order.filter((one) => ranks.has(one.rank) && (!state || one.cells[0] === state) && inMark(one) && words.every((w) => one.text.includes(w)));
    const seen = matching.slice(0, room);
    body.replaceChildren(...seen.map((one) => (one.tr ??= draw(one))));
    $('shown').textContent = (seen.length < matching.length ? 'The first ' + seen.length + ' of ' : '') + matching.length +
      (matching.length < rows.length ? ' matching, of ' + rows.length + ' in all' : ' in all');
    next.hidden = seen.length === matching.length;
    mark.hidden = !chosen;
    mark.textContent = chosen ? 'Ends ' + (chosen.first === chosen.last ? chosen.first : chosen.first + ' to ' + chosen.last) + ' ✕' : '';
    light();
  }

  function anew() {
    room = step;
    show();
  }

  // Headers sort as the list does, which narrow screens have instead.
  const headers = { 1: 1, 2: 3, 4: 4, 5: 5 };
  const header = (nth) => table.tHead.rows[0].cells[nth - 1];
  function light() {
    for (const [nth, column] of Object.entries(headers)) {
      const lit = Math.abs(sort.value) === column;
      if (lit) header(nth).setAttribute('aria-sort', sort.value > 0 ? 'ascending' : 'descending');
      else header(nth).removeAttribute('aria-sort');
    }
  }
  for (const [nth, column] of Object.entries(headers)) {
    const button = element('button', header(nth).textContent);
    button.type = 'button';
    header(nth).replaceChildren(button);
    button.addEventListener('click', () => {
      sort.value = Number(sort.value) === column ? -column : column;
      anew();
    });
  }

  // A mark of a timeline shows its certificates, and nothing else.
  for (const g of document.querySelectorAll('.mark')) {
    const choose = () => {
      form.reset();
      chosen = { rank: g.parentNode.className.baseVal, ...g.dataset };
      $('all').scrollIntoView();
    };
    g.setAttribute('role', 'button');
    g.setAttribute('tabindex', '0');
    g.addEventListener('click', choose);
    g.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      choose();
    });
  }
  mark.addEventListener('click', () => { chosen = null; anew(); });
  next.addEventListener('click', () => { room += step; show(); });

  // A page that was kept says so, for what it says of the present was long ago.
  const days = Math.floor((Date.now() - Date.parse($('made').dateTime)) / 86400000);
  if (days > 0) $('age').textContent = ' · ' + days + (days === 1 ? ' day' : ' days') + ' old';

  if (rest) rest.remove();
  next.hidden = !rest;
  form.hidden = false;
  document.documentElement.classList.add('js');
  light();
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', anew);
  form.addEventListener('reset', () => { chosen = null; setTimeout(anew); });
})();

'use strict';
// The live page. It asks for nothing but /dashboard/…, keeps a bounded past, and writes what strangers chose (keys, names) as
// text only.
(() => {
  const POINTS = 300; // of a series: five minutes at one a second
  const FEED = 200; // denials that are kept
  const TRACKED = 200; // policies and guards with a past
  const ROWS = 50; // of a table
  const CARDS = 12; // of a view
  const SVG = 'http://www.w3.org/2000/svg';

  // --- Text -------------------------------------------------------------------------------------------------------------

  // Characters that show nothing, or change how others show: controls, line separators, direction marks, halves of pairs.
  const INVISIBLE = new RegExp('[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f'
    + '\\ufeff\\ufff9-\\ufffb]'
    + '|[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]', 'g');

  // readable is text that shows every character, and no more than so many.
  function readable(value, most = 64) {
    let text = String(value ?? '').slice(0, 4 * most);
    const clipped = text.length < String(value ?? '').length;
    text = text.replace(INVISIBLE, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
    const all = Array.from(text);
    if (all.length > most || clipped) return all.slice(0, most).join('') + '…';
    return text;
  }

  function count(n) {
    if (!Number.isFinite(n)) return '–';
    const size = Math.abs(n);
    if (size < 1000) return String(Math.round(n));
    if (size < 9950) return (n / 1000).toFixed(1) + 'k';
    if (size < 999500) return Math.round(n / 1000) + 'k';
    if (size < 1e9) return (n / 1e6).toFixed(1) + 'M';
    return n.toExponential(1);
  }
  const rate = (n) => (Number.isFinite(n) && n > 0 && n < 9.95 ? n.toFixed(1) : count(n));
  const percent = (part) =>
    (Number.isFinite(part) ? (part > 0 && part < 0.0995 ? (100 * part).toFixed(1) : Math.round(100 * part)) + '%' : '–');
  function millis(ms) {
    if (!Number.isFinite(ms)) return '–';
    if (ms > 0 && ms < 0.001) return '<1 µs';
    if (ms < 1) return Math.round(ms * 1000) + ' µs';
    if (ms < 10) return ms.toFixed(1) + ' ms';
    if (ms < 1000) return Math.round(ms) + ' ms';
    return span(ms);
  }
  function span(ms) {
    if (!Number.isFinite(ms)) return '–';
    const s = Math.max(0, ms) / 1000;
    if (s < 0.05) return 'now';
    if (s < 10) return s.toFixed(1) + ' s';
    if (s < 120) return Math.round(s) + ' s';
    if (s < 7200) return Math.round(s / 60) + ' min';
    if (s < 172800) return Math.round(s / 3600) + ' h';
    return Math.round(s / 86400) + ' d';
  }
  const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  const timeOf = (ms) => (Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? clock.format(ms) : '–');

  // --- Elements ---------------------------------------------------------------------------------------------------------

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
    return element;
  }
  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value == null) element.removeAttribute(name);
      else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? '' : value);
    }
    return element;
  }
  function make(tag, attributes = {}, ...children) {
    const element = set(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  }
  const draw = (tag, attributes = {}) => set(document.createElementNS(SVG, tag), attributes);
  const byId = (id) => document.getElementById(id);

  let serial = 0;
  const unique = (stem) => stem + '-' + ++serial;

  function card(title, ...children) {
    const heading = make('h2', { id: unique('title') }, title);
    const hint = make('span', { class: 'hint' });
    const header = make('header', {}, heading, hint);
    const el = make('section', { class: 'card', 'aria-labelledby': heading.id }, header, ...children);
    return { el, heading, hint, header };
  }

  // keyChip shows a key whole in its tooltip as far as that is bounded.
  function putKey(td, key) {
    const chip = td.firstElementChild ?? td.appendChild(make('span', { class: 'key' }));
    write(chip, key === '' ? '(empty)' : readable(key, 48));
    set(chip, { title: readable(key, 200) });
  }
  function putName(td, name) {
    const chip = td.firstElementChild ?? td.appendChild(make('span', { class: 'name' }));
    write(chip, readable(name, 48));
    set(chip, { title: readable(name, 200) });
  }
  const putText = (td, text) => write(td, text);

  // bar is a filled track; its numbers stand beside it as text, so it says nothing to a screen reader.
  function bar(parent) {
    let track = parent.querySelector(':scope > .track');
    if (!track) track = parent.appendChild(make('div', { class: 'track', 'aria-hidden': 'true' }, make('div', { class: 'fill' })));
    const fill = track.firstElementChild;
    return {
      set(part, trouble = false, tick = null) {
        fill.style.width = 100 * Math.min(1, Math.max(0, part || 0)) + '%';
        fill.classList.toggle('trouble', trouble);
        let mark = track.querySelector('.tick');
        if (tick === null) { mark?.remove(); return; }
        mark ??= track.appendChild(make('div', { class: 'tick' }));
        mark.style.left = 100 * Math.min(1, Math.max(0, tick)) + '%';
      },
    };
  }

  // table keeps one row for each key, in the order given. Roles are spelled out because a phone shows rows as blocks.
  function table(label, columns, empty) {
    const head = make('tr', { role: 'row' },
      ...columns.map((c) => make('th', { scope: 'col', role: 'columnheader', class: c.class }, c.label)));
    const body = make('tbody', { role: 'rowgroup' });
    const grid = make('table', { role: 'table', 'aria-label': label }, make('thead', { role: 'rowgroup' }, head), body);
    const none = make('p', { class: 'empty' }, empty);
    const more = make('p', { class: 'hint', hidden: true });
    const rows = new Map();
    return {
      el: make('div', {}, grid, none, more),
      update(items, most = ROWS) {
        const shown = items.slice(0, most);
        const keep = new Set(shown.map((i) => i.id));
        for (const [id, tr] of rows) if (!keep.has(id)) { tr.remove(); rows.delete(id); }
        shown.forEach((item, at) => {
          let tr = rows.get(item.id);
          if (!tr) {
            tr = make('tr', { role: 'row' }, ...columns.map((c) => make('td', { role: 'cell', class: c.class, 'data-label': c.label })));
            rows.set(item.id, tr);
          }
          columns.forEach((c, i) => c.put(tr.children[i], item));
          if (body.children[at] !== tr) body.insertBefore(tr, body.children[at] ?? null);
        });
        grid.hidden = shown.length === 0;
        none.hidden = shown.length > 0;
        more.hidden = items.length <= most;
        write(more, `and ${count(items.length - most)} more: filter to see them`);
      },
    };
  }

  // several keeps one card for each item of a list.
  function several(create, empty) {
    const el = make('div', { class: 'view' });
    const none = make('p', { class: 'card empty' }, empty);
    const more = make('p', { class: 'hint' });
    el.append(none, more);
    const cards = new Map();
    return {
      el,
      update(items) {
        const shown = items.slice(0, CARDS);
        const keep = new Set(shown.map((i) => i.id));
        for (const [id, c] of cards) if (!keep.has(id)) { c.el.remove(); cards.delete(id); }
        for (const item of shown) {
          let c = cards.get(item.id);
          if (!c) { c = create(item); cards.set(item.id, c); el.insertBefore(c.el, more); }
          c.update(item);
        }
        none.hidden = shown.length > 0;
        more.hidden = items.length <= CARDS;
        write(more, `and ${count(items.length - CARDS)} more: filter to see them`);
      },
    };
  }

  // shares is a list of parts of a sum, {id, label, n}, each with a bar.
  function shares() {
    const el = make('div', { class: 'bars' });
    const rows = new Map();
    return {
      el,
      update(list) {
        const keep = new Set(list.map((l) => l.id));
        for (const [id, row] of rows) if (!keep.has(id)) { row.remove(); rows.delete(id); }
        const sum = list.reduce((n, l) => n + l.n, 0);
        list.forEach((l, at) => {
          let row = rows.get(l.id);
          if (!row) rows.set(l.id, row = make('div', { class: 'row' }, make('span', { class: 'name' }), make('span', { class: 'num' })));
          write(row.children[0], readable(l.label, 40));
          write(row.children[1], sum ? `${percent(l.n / sum)} · ${count(l.n)}` : '0');
          bar(row).set(sum ? l.n / sum : 0, l.n > 0);
          if (el.children[at] !== row) el.insertBefore(row, el.children[at] ?? null);
        });
      },
    };
  }

  function numbers(labels) {
    const cells = labels.map(() => make('dd'));
    const list = make('dl', { class: 'numbers' }, ...labels.map((l, i) => make('div', {}, make('dt', {}, l), cells[i])));
    return { el: list, set: (...texts) => texts.forEach((t, i) => write(cells[i], t)) };
  }

  // --- The past ---------------------------------------------------------------------------------------------------------

  // Series is the latest points of several values over time. NaN is a gap.
  class Series {
    constructor(...names) {
      this.times = new Float64Array(POINTS);
      this.values = Object.fromEntries(names.map((n) => [n, new Float64Array(POINTS)]));
      this.n = 0;
    }
    push(time, values) {
      const i = this.n++ % POINTS;
      this.times[i] = time;
      for (const name in this.values) this.values[name][i] = values[name] ?? NaN;
    }
    get length() { return Math.min(this.n, POINTS); }
    slot(i) { return (this.n - this.length + i) % POINTS; }
    time(i) { return this.times[this.slot(i)]; }
    value(name, i) { return this.values[name][this.slot(i)]; }
    last(name) { return this.length ? this.value(name, this.length - 1) : NaN; }
  }

  const past = { total: new Series('allowed', 'denied'), policies: new Map(), guards: new Map() };
  let before = null; // the snapshot before, as far as rates need it
  let seen = null; // the latest snapshot
  let rates = new Map(); // of policies, per second
  let intervalMs = 1000;

  // difference is how fast a counter of a window grew. At the beginning of a window it begins with 0.
  function difference(now, old, nowAt, oldAt, windowAt) {
    if (windowAt > oldAt) return nowAt - windowAt >= 250 ? (1000 * now) / (nowAt - windowAt) : NaN;
    return nowAt > oldAt && now >= old ? (1000 * (now - old)) / (nowAt - oldAt) : NaN;
  }

  function remember(snapshot) {
    const at = snapshot.meta.generatedAt;
    if (before && at <= before.at && at > before.at - 60000) return; // the same one again
    const sameRun = before && at - before.at < Math.max(5000, 4 * intervalMs) && at > before.at;
    const counters = new Map();
    const next = new Map();
    const sum = { allowed: 0, denied: 0 };
    let known = false;
    for (const p of snapshot.policies) {
      const a = p.analytics;
      const mine = { allowed: a.allowed, denied: a.denied, units: a.units, granted: a.leases?.granted ?? 0, leased: a.leases?.units ?? 0 };
      counters.set(p.name, mine);
      const old = sameRun ? before.counters.get(p.name) : undefined;
      const r = {};
      for (const name in mine) r[name] = old ? difference(mine[name], old[name], at, before.at, a.windowStartedAt) : NaN;
      const was = rates.get(p.name);
      // Right after a window began there is nothing to measure yet: the rate of before is the better guess.
      if (old && was && a.windowStartedAt > before.at && at - a.windowStartedAt < 250) Object.assign(r, was);
      next.set(p.name, r);
      if (Number.isFinite(r.allowed) && Number.isFinite(r.denied)) { known = true; sum.allowed += r.allowed; sum.denied += r.denied; }
      let series = past.policies.get(p.name);
      if (!series && past.policies.size < TRACKED) past.policies.set(p.name, series = new Series('p50', 'p99', 'units', 'leased'));
      series?.push(at, { p50: p.latency?.p50Ms, p99: p.latency?.p99Ms, units: r.units, leased: r.leased });
    }
    for (const name of past.policies.keys()) if (!counters.has(name)) past.policies.delete(name);
    past.total.push(at, known ? sum : {});
    const guards = new Set();
    for (const g of snapshot.guards) {
      guards.add(g.name);
      let series = past.guards.get(g.name);
      if (!series && past.guards.size < TRACKED) past.guards.set(g.name, series = new Series('limit', 'inflight'));
      series?.push(at, { limit: g.limit, inflight: g.inflight });
    }
    for (const name of past.guards.keys()) if (!guards.has(name)) past.guards.delete(name);
    rates = next;
    before = { at, counters };
  }

  // --- Charts -----------------------------------------------------------------------------------------------------------

  const AGES = [10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600].map((s) => 1000 * s); // between marks of the time axis

  // niceTop is a round number not below top, whose half is round as well.
  function niceTop(top) {
    const size = 10 ** Math.floor(Math.log10(top));
    return [1, 2, 3, 4, 5, 6, 8, 10].find((step) => top <= step * size) * size;
  }

  // chart draws lines over time. lines: {name, label, class, area, stacked}. The legend reads out the latest values, or those
  // under the pointer or chosen with the arrow keys. The axis goes up to least at least.
  function chart(title, lines, format, least) {
    const svg = draw('svg', { 'aria-hidden': 'true' });
    const values = lines.map(() => make('b'));
    const legend = make('div', { class: 'legend' },
      ...lines.map((l, i) => make('span', {}, make('i', { class: l.class }), l.label + ' ', values[i])));
    const box = make('div', { class: 'chart', tabindex: '0', role: 'img' }, svg);
    const el = make('figure', {}, legend, box);
    let series = null;
    let chosen = -1; // a time, or -1 for the latest
    let frame = null; // of the last drawing

    const heights = (i) => {
      let below = 0;
      return lines.map((l) => {
        const v = series.value(l.name, i);
        if (!l.stacked) return v;
        return (below += v);
      });
    };
    const nearest = (time) => {
      let best = series.length - 1;
      for (let i = 0; i < series.length; i++) {
        if (Math.abs(series.time(i) - time) < Math.abs(series.time(best) - time)) best = i;
      }
      return best;
    };
    function readOut() {
      if (!series?.length) return;
      const i = chosen < 0 ? series.length - 1 : nearest(chosen);
      lines.forEach((l, k) => write(values[k], format(series.value(l.name, i))));
      for (const old of svg.querySelectorAll('.cursor')) old.remove();
      if (chosen >= 0 && frame) {
        const x = frame.x(series.time(i)), late = x > (frame.left + frame.right) / 2;
        const when = draw('text', { class: 'cursor axis', x: late ? x - 6 : x + 6, y: frame.top + 10,
          'text-anchor': late ? 'end' : 'start' });
        when.textContent = timeOf(series.time(i));
        svg.append(draw('line', { class: 'cursor', x1: x, x2: x, y1: frame.top, y2: frame.bottom }), when);
      }
    }
    function describe() {
      const parts = lines.map((l) => {
        let low = Infinity, high = -Infinity;
        for (let i = 0; i < series.length; i++) {
          const v = series.value(l.name, i);
          if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
        }
        if (high < low) return `${l.label}: nothing yet`;
        return `${l.label}: now ${format(series.last(l.name))}, from ${format(low)} to ${format(high)}`;
      });
      const minutes = Math.max(1, Math.round((series.time(series.length - 1) - series.time(0)) / 60000));
      const long = minutes === 1 ? 'minute' : minutes + ' minutes';
      set(box, { 'aria-label': `${title}, the last ${long}. ${parts.join('. ')}. Arrow keys read out earlier values.` });
    }
    function update(newSeries) {
      series = newSeries ?? series;
      const width = svg.clientWidth, height = svg.clientHeight;
      if (!series?.length || !width) return;
      const left = 46, top = 8, bottom = height - 22, right = width - 2;
      const last = series.time(series.length - 1);
      const first = Math.min(series.time(0), last - 60000);
      let max = least;
      for (let i = 0; i < series.length; i++) for (const v of heights(i)) if (v > max) max = v;
      max = niceTop(max);
      const x = (t) => left + ((t - first) / (last - first)) * (right - left);
      const y = (v) => bottom - (v / max) * (bottom - top);
      frame = { x, left, right, top, bottom, first, last };
      const parts = [];
      for (let k = 0; k <= 4; k += 2) {
        const v = (max * k) / 4;
        parts.push(draw('line', { class: 'grid', x1: left, x2: right, y1: y(v), y2: y(v) }));
        const label = draw('text', { class: 'axis', x: left - 8, y: y(v) + 4, 'text-anchor': 'end' });
        label.textContent = format(v);
        parts.push(label);
      }
      const step = AGES.find((s) => (last - first) / s <= (width < 420 ? 2.5 : 5)) ?? last - first;
      for (let age = 0; age <= last - first; age += step) {
        const at = x(last - age);
        const label = draw('text', { class: 'axis', x: at, y: height - 4,
          'text-anchor': age === 0 ? 'end' : at < left + 24 ? 'start' : 'middle' });
        label.textContent = age === 0 ? 'now' : '−' + (age < 60000 || age % 60000 ? age / 1000 + ' s' : age / 60000 + ' min');
        parts.push(label);
      }
      // Lines that lie on others are drawn after them; an area goes down to the line below.
      lines.forEach((l, k) => {
        let line = '', area = '', run = [];
        const close = () => {
          if (run.length && l.area) {
            area += 'M' + run.map((p) => `${p.x} ${p.y}`).join('L') + 'L' + run.reverse().map((p) => `${p.x} ${p.base}`).join('L') + 'Z';
          }
          run = [];
        };
        for (let i = 0; i < series.length; i++) {
          const h = heights(i);
          if (!Number.isFinite(h[k])) { close(); continue; }
          const p = { x: x(series.time(i)).toFixed(1), y: y(h[k]).toFixed(1), base: y(l.stacked && k > 0 ? h[k - 1] : 0).toFixed(1) };
          line += (run.length ? 'L' : 'M') + `${p.x} ${p.y}`;
          run.push(p);
        }
        close();
        if (area) parts.push(draw('path', { class: l.class + ' area', d: area }));
        if (line) parts.push(draw('path', { class: l.class, d: line }));
      });
      svg.replaceChildren(...parts);
      readOut();
      describe();
    }
    const choose = (time) => { chosen = time; readOut(); };
    svg.addEventListener('pointermove', (e) => {
      if (!frame) return;
      const part = (e.clientX - svg.getBoundingClientRect().left - frame.left) / (frame.right - frame.left);
      choose(frame.first + Math.min(1, Math.max(0, part)) * (frame.last - frame.first));
    });
    svg.addEventListener('pointerleave', () => choose(-1));
    box.addEventListener('blur', () => choose(-1));
    box.addEventListener('keydown', (e) => {
      if (!series?.length) return;
      const at = chosen < 0 ? series.length - 1 : nearest(chosen);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 30, PageDown: at + 30, Home: 0, End: series.length - 1 }[e.key];
      if (to === undefined && e.key !== 'Escape') return;
      e.preventDefault();
      choose(e.key === 'Escape' || to >= series.length - 1 ? -1 : series.time(Math.max(0, to)));
      const read = lines.map((l, k) => l.label + ' ' + values[k].textContent).join(', ');
      set(box, { 'aria-description': `${chosen < 0 ? 'now' : timeOf(chosen)}: ${read}` });
    });
    new ResizeObserver(() => update()).observe(box);
    return { el, update };
  }

  // spark is a line without axes; the number beside it says the latest value.
  function putSpark(td, series, name, label) {
    const svg = td.querySelector('svg') ?? td.appendChild(draw('svg', { class: 'spark', viewBox: '0 0 110 26', role: 'img' }));
    let line = '', max = 0, pen = false;
    const n = series?.length ?? 0;
    for (let i = 0; i < n; i++) max = Math.max(max, series.value(name, i) || 0);
    for (let i = 0; i < n; i++) {
      const v = series.value(name, i);
      if (!Number.isFinite(v)) { pen = false; continue; }
      line += `${pen ? 'L' : 'M'}${((i / Math.max(1, n - 1)) * 108 + 1).toFixed(1)} ${(24 - (max ? v / max : 0) * 22).toFixed(1)}`;
      pen = true;
    }
    const path = svg.querySelector('path') ?? svg.appendChild(draw('path'));
    set(path, { d: line || 'M1 24' });
    set(svg, { 'aria-label': label });
  }

  // --- Views ------------------------------------------------------------------------------------------------------------

  let filter = '';
  const wanted = (name) => filter === '' || name.toLowerCase().includes(filter);
  // busiest keeps the order of the server as long as all fit, and else shows those with the most traffic.
  function busiest(policies, most) {
    if (policies.length <= most) return policies;
    return [...policies].sort((a, b) => b.analytics.total - a.analytics.total);
  }
  const identified = (list) => list.map((item) => Object.assign({ id: item.name }, item));
  const kindOf = (p) => (p.kind === 'admitter' ? 'admitter' : p.policyKind !== 'plain' ? p.policyKind : p.strategy || p.kind);
  const LANES = [['rate', 'Rate'], ['concurrency', 'Concurrency'], ['cost', 'Cost'], ['policy', 'Price']];

  function choice(label, onChange) {
    const select = make('select', { 'aria-label': label });
    let names = '', chosen = false;
    select.addEventListener('change', () => { chosen = true; onChange(); });
    return {
      el: select,
      // offer lists the names, and keeps the one that was chosen as long as it is there. Until then it shows the preferred one.
      offer(list, preferred) {
        const next = JSON.stringify(list), was = select.value;
        if (next !== names) {
          names = next;
          select.replaceChildren(...list.map((n) => make('option', { value: n }, readable(n, 40))));
        }
        const want = chosen && list.includes(was) ? was : preferred ?? list[0] ?? '';
        if (select.value !== want) select.value = want;
        select.hidden = list.length < 2;
        return want;
      },
    };
  }

  function overview() {
    const tile = (label) => {
      const big = make('strong'), hint = make('span', { class: 'hint' });
      return { el: make('div', { class: 'card tile quarter' }, make('span', { class: 'hint' }, label), big, hint), big, hint };
    };
    const put = (t, value, unit, hint, trouble = false) => {
      if (!t.unit) t.big.append(t.text = document.createTextNode(''), t.unit = make('small'));
      if (t.text.data !== value) t.text.data = value;
      write(t.unit, unit);
      write(t.hint, hint);
      t.big.classList.toggle('trouble', trouble);
    };
    const allowed = tile('Allowed'), denied = tile('Denied'), share = tile('Denied share'), slow = tile('Slowest p99');
    const throughput = chart('Throughput', [
      { name: 'allowed', label: 'Allowed', class: 'calm', area: true, stacked: true },
      { name: 'denied', label: 'Denied', class: 'red', area: true, stacked: true },
    ], (v) => rate(v) + '/s', 1);
    const throughputCard = card('Throughput', throughput.el);

    const lanes = shares(), culprits = shares();
    const lanesTitle = make('h3', {}, 'Denials by policy');
    const lanesCard = card('What binds', lanes.el, lanesTitle, culprits.el);
    const pick = choice('Admitter', () => update(seen));
    lanesCard.header.append(pick.el);
    lanesCard.el.classList.add('half');
    let lastDenying;

    const top = table('Top denied keys', [
      { label: 'Key', put: (td, r) => putKey(td, r.key) },
      { label: 'Policy', put: (td, r) => putName(td, r.policy) },
      { label: 'Denied', class: 'num', put: (td, r) => putText(td, count(r.count)) },
      { label: '', class: 'wide', put: (td, r) => bar(td).set(r.count / r.most, true) },
    ], 'Nothing was denied in this window.');
    const topCard = card('Top denied keys', top.el);
    topCard.el.classList.add('half');

    const policies = table('Policies', [
      { label: 'Policy', put: (td, p) => putName(td, p.name) },
      { label: 'Kind', put: (td, p) => putText(td, readable(kindOf(p), 30)) },
      { label: 'Allowed', class: 'num', put: (td, p) => putText(td, rate(rates.get(p.name)?.allowed) + '/s') },
      { label: 'Denied', class: 'num', put: (td, p) => putText(td, rate(rates.get(p.name)?.denied) + '/s') },
      { label: 'This window', class: 'num', put: (td, p) => putText(td, count(p.analytics.total)) },
      { label: 'Denied share', class: 'num', put: (td, p) => putText(td, p.analytics.total ? percent(p.analytics.denyRate) : '–') },
      { label: '', class: 'wide', put: (td, p) => bar(td).set(p.analytics.denyRate, true) },
      { label: 'Limit', class: 'num', put: (td, p) => putText(td, p.limit ? count(p.limit) : '–') },
      { label: 'Store outages', class: 'num', put: (td, p) => {
        const n = p.analytics.failModeDecisions;
        putText(td, n ? `${count(n)} fail-${p.failMode}` : '–');
        td.classList.toggle('trouble', n > 0);
      } },
    ], 'No policy matches.');
    const policiesCard = card('Policies', policies.el);

    const guards = table('Guards', [
      { label: 'Guard', put: (td, g) => putName(td, g.name) },
      { label: 'In flight', class: 'num', put: (td, g) => putText(td, `${count(g.inflight)} of ${count(g.limit)}`) },
      { label: '', class: 'wide', put: (td, g) => bar(td).set(g.inflight / g.limit, g.fenced === true) },
      { label: 'Latency', class: 'num', put: (td, g) => putText(td, g.lastRtt > 0 ? millis(g.lastRtt) : '–') },
      { label: 'Share', class: 'num', put: (td, g) =>
        putText(td, g.share === undefined ? '–' : `${count(g.share)} of ${count(g.lGlobal)}`) },
      { label: 'State', class: 'num', put: (td, g) => {
        putText(td, g.fenced ? 'FENCED' : 'open');
        td.classList.toggle('trouble', g.fenced === true);
      } },
    ], '');
    const guardsCard = card('Guards', guards.el);

    const feed = feedTable();
    const feedCard = card('Live denials', feed.el);
    const el = make('div', { class: 'view' }, allowed.el, denied.el, share.el, slow.el, throughputCard.el, lanesCard.el, topCard.el,
      guardsCard.el, policiesCard.el, feedCard.el);

    function update(s) {
      const list = s.policies.filter((p) => wanted(p.name));
      let sums = { allowed: 0, denied: 0 }, windowAllowed = 0, windowDenied = 0, slowest = null;
      let known = false;
      for (const p of list) {
        const r = rates.get(p.name);
        if (Number.isFinite(r?.allowed)) { known = true; sums.allowed += r.allowed; sums.denied += r.denied || 0; }
        windowAllowed += p.analytics.allowed;
        windowDenied += p.analytics.denied;
        if (p.latency && (!slowest || p.latency.p99Ms > slowest.latency.p99Ms)) slowest = p;
      }
      const total = windowAllowed + windowDenied;
      put(allowed, known ? rate(sums.allowed) : '–', '/s', `${count(windowAllowed)} this window`);
      put(denied, known ? rate(sums.denied) : '–', '/s', `${count(windowDenied)} this window`, sums.denied >= 0.05);
      put(share, total ? percent(windowDenied / total) : '–', '', `of ${count(total)} this window`);
      put(slow, slowest ? millis(slowest.latency.p99Ms) : '–', '', slowest ? readable(slowest.name, 32) : 'nothing was timed yet');
      throughput.update(past.total);
      write(throughputCard.hint, filter ? 'all policies' : '');

      const admitters = list.filter((p) => p.analytics.deniedByLane);
      // The first one that denies, and as nothing is denied for a while after a window began, still the one from before.
      const denying = admitters.find((p) => p.analytics.denied > 0) ?? admitters.find((p) => p.name === lastDenying) ?? admitters[0];
      lastDenying = denying?.name;
      const name = pick.offer(admitters.slice(0, TRACKED).map((p) => p.name), denying?.name);
      const admitter = admitters.find((p) => p.name === name);
      lanes.el.hidden = !admitter;
      lanesTitle.hidden = !admitter;
      write(lanesCard.heading, admitter ? 'What binds' : 'Denials by policy');
      write(lanesCard.hint, admitter && admitters.length === 1 ? readable(admitter.name, 40) : '');
      if (admitter) lanes.update(LANES.map(([lane, label]) => ({ id: lane, label, n: admitter.analytics.deniedByLane[lane] ?? 0 })));
      culprits.update(identified([...list].sort((a, b) => b.analytics.denied - a.analytics.denied).slice(0, admitter ? 3 : 6))
        .map((p) => ({ id: p.id, label: p.name, n: p.analytics.denied })));

      const keys = new Map(); // merged by the highest count, because policies count the same key apart
      for (const p of list) {
        for (const k of p.analytics.topDenied) {
          const had = keys.get(k.key);
          if (!had || had.count < k.count) keys.set(k.key, { id: k.key, key: k.key, count: k.count, policy: p.name });
        }
      }
      const ranked = [...keys.values()].sort((a, b) => b.count - a.count || (a.key < b.key ? -1 : 1)).slice(0, 8);
      ranked.forEach((r) => { r.most = ranked[0].count; });
      top.update(ranked);
      policies.update(identified(busiest(list, ROWS)));
      write(policiesCard.hint, list.length === 1 ? '1 policy' : `${count(list.length)} policies`);
      const gs = identified(s.guards.filter((g) => wanted(g.name)));
      guardsCard.el.hidden = gs.length === 0;
      guards.update(gs, 6);
      feed.update();
      write(feedCard.hint, feedHint());
    }
    return { el, update, feed() { feed.update(); write(feedCard.hint, feedHint()); } };
  }

  function latency() {
    const lines = chart('Latency', [
      { name: 'p50', label: 'p50', class: 'quiet' },
      { name: 'p99', label: 'p99', class: 'calm' },
    ], millis, 0.002);
    const lineCard = card('Latency over time', lines.el);
    const pick = choice('Policy', () => update(seen));
    lineCard.header.append(pick.el);
    const rows = table('Latency by policy', [
      { label: 'Policy', put: (td, p) => putName(td, p.name) },
      { label: 'Average', class: 'num', put: (td, p) => putText(td, millis(p.latency.avgMs)) },
      { label: 'p50', class: 'num', put: (td, p) => putText(td, millis(p.latency.p50Ms)) },
      { label: 'p99', class: 'num', put: (td, p) => {
        putText(td, millis(p.latency.p99Ms));
        td.classList.toggle('trouble', p.latency.p99Ms >= 25 && p.latency.p99Ms >= 10 * p.latency.p50Ms);
      } },
      { label: 'Longest', class: 'num', put: (td, p) => putText(td, millis(p.latency.maxMs)) },
      { label: 'Timed', class: 'num', put: (td, p) => putText(td, count(p.latency.n)) },
      { label: 'p99 lately', class: 'num', put: (td, p) =>
        putSpark(td, past.policies.get(p.name), 'p99', `p99 of ${readable(p.name)}, now ${millis(p.latency.p99Ms)}`) },
    ], 'Nothing was timed yet.');
    const rowsCard = card('By policy', rows.el);
    write(rowsCard.hint, 'the latest 256 decisions of each');
    let shown; // the slowest one when there was something to show first
    function update(s) {
      const timed = s.policies.filter((p) => wanted(p.name) && p.latency);
      const offered = timed.filter((p) => past.policies.has(p.name));
      shown = offered.find((p) => p.name === shown)?.name
        ?? offered.reduce((a, b) => (a && a.latency.p99Ms >= b.latency.p99Ms ? a : b), null)?.name;
      const name = pick.offer(offered.map((p) => p.name), shown);
      lineCard.el.hidden = !past.policies.has(name);
      write(lineCard.hint, readable(name, 40));
      lineCard.hint.hidden = !pick.el.hidden;
      lines.update(past.policies.get(name));
      rows.update(identified(busiest(timed, ROWS)));
    }
    return { el: make('div', { class: 'view' }, lineCard.el, rowsCard.el), update };
  }

  // lasts says for how long a tenant that goes on like this stays within its guarantee.
  function lasts(t) {
    if (t.used >= t.guaranteed) return 'used up';
    if (t.capped) return 'this window';
    return Number.isFinite(t.gone) ? span(t.gone - seen.meta.generatedAt) : '–';
  }

  function fairness() {
    const list = several((share) => {
      const facts = numbers(['Limit', 'Effective here', 'Used', 'Free', 'Free for']);
      const rows = table('Tenants of ' + readable(share.name), [
        { label: 'Tenant', put: (td, t) => putKey(td, t.tenant) },
        { label: 'Weight', class: 'num', put: (td, t) => putText(td, String(+t.weight.toFixed(2))) },
        { label: 'Used', class: 'num', put: (td, t) => putText(td, count(t.used)) },
        { label: 'Guaranteed', class: 'num', put: (td, t) => putText(td, (t.sure ? '' : '≤ ') + count(t.guaranteed)) },
        { label: 'Borrowed', class: 'num', put: (td, t) =>
          putText(td, t.used > t.guaranteed ? '+' + count(t.used - t.guaranteed) : '–') },
        { label: 'Burn', class: 'num', put: (td, t) => {
          putText(td, t.burn === undefined ? '–' : t.burn === null ? 'measuring' : rate(t.burn) + '/s');
        } },
        { label: 'Guarantee lasts', class: 'num', put: (td, t) => putText(td, lasts(t)) },
        { label: 'Used of guarantee', class: 'wide', put: (td, t) => bar(td).set(t.used / t.most, false, t.guaranteed / t.most) },
      ], 'No tenant has asked in this window.');
      const c = card(readable(share.name), facts.el, rows.el);
      return {
        el: c.el,
        update({ value: v, error }) {
          if (!v) { write(c.hint, readable(error ?? 'not available')); return; }
          const room = seen.costRooms?.find((r) => r.policy === share.name); // how fast tenants burn, of the busiest ones
          const burning = new Map(room?.tenants.map((t) => [t.tenant, t]));
          facts.set(count(v.limit), count(v.effectiveLimit), count(v.totalUsed), count(v.pool),
            room?.poolEtaToExhaustAt ? span(room.poolEtaToExhaustAt - seen.meta.generatedAt) : '–');
          const weights = v.tenants.reduce((n, t) => n + t.weight, 0) || 1;
          const all = v.tenantCount ?? v.tenants.length;
          const tenants = v.tenants.map((t) => ({
            id: t.tenant, ...t, guaranteed: Math.floor((t.weight * v.effectiveLimit) / weights), sure: all <= v.tenants.length,
            burn: burning.get(t.tenant)?.burnPerSec, gone: burning.get(t.tenant)?.etaToExhaustAt ?? NaN,
            capped: burning.get(t.tenant)?.etaCappedByWindow,
          }));
          tenants.sort((a, b) => Math.max(b.used, b.guaranteed) - Math.max(a.used, a.guaranteed));
          const most = Math.max(1, ...tenants.map((t) => Math.max(t.used, t.guaranteed)));
          tenants.forEach((t) => { t.most = most; });
          const under = tenants.slice(10).filter((t) => t.used < t.guaranteed).length;
          rows.update(tenants, 10);
          write(c.hint, `${count(all)} tenants${v.unit ? ' · ' + readable(v.unit) : ''}`
            + (under ? ` · ${count(under)} more below their guarantee` : ''));
        },
      };
    }, 'No policy here divides a limit among tenants. One with fairEscrow appears here.');
    return { el: list.el, update: (s) => list.update(identified(s.stats.filter((x) => wanted(x.name)))) };
  }

  function capacity() {
    const why = { async: 'state is not in memory', idle: 'no traffic', unsupported: 'no forecast for this kind' };
    const rows = table('Capacity by policy', [
      { label: 'Policy', put: (td, p) => putName(td, p.name) },
      { label: 'Hottest key', put: (td, p) => {
        if (p.forecast) {
          if (!td.firstElementChild) td.textContent = '';
          putKey(td, p.forecast.key);
        } else {
          putText(td, p.kind === 'admitter' ? 'admits, see Guards' : why[p.forecastUnavailable] ?? '–');
        }
        td.classList.toggle('hint', !p.forecast);
      } },
      { label: 'Spendable now', class: 'num', put: (td, p) =>
        putText(td, p.forecast ? `${count(p.forecast.spendableNow)} of ${p.limit ? count(p.limit) : '–'}` : '–') },
      { label: '', class: 'wide', put: (td, p) => {
        if (p.forecast && p.limit) bar(td).set(p.forecast.spendableNow / p.limit);
        else td.textContent = '';
      } },
      { label: 'Next unit in', class: 'num', put: (td, p) =>
        putText(td, p.forecast ? span(p.forecast.nextReplenishAt - seen.meta.generatedAt) : '–') },
      { label: 'Full in', class: 'num', put: (td, p) => putText(td, p.forecast ? span(p.forecast.fullAt - seen.meta.generatedAt) : '–') },
    ], 'No policy matches.');
    const c = card('What the hottest key can still spend', rows.el);
    write(c.hint, 'the key denied most often, else asked for most often');
    return {
      el: make('div', { class: 'view' }, c.el),
      update: (s) => rows.update(identified(busiest(s.policies.filter((p) => wanted(p.name)), ROWS))),
    };
  }

  function guards() {
    const list = several((guard) => {
      const facts = numbers(['In flight', 'Limit', 'Headroom', 'Waiting', 'Latency', 'Without load', 'Share of fleet', 'Nodes']);
      const lines = chart('Guard ' + readable(guard.name), [
        { name: 'limit', label: 'Limit', class: 'quiet' },
        { name: 'inflight', label: 'In flight', class: 'calm', area: true },
      ], count, 2);
      const c = card(readable(guard.name), facts.el, lines.el);
      const badge = make('span', { class: 'badge' });
      c.header.insertBefore(badge, c.hint);
      return {
        el: c.el,
        update(g) {
          const ceiling = g.share === undefined ? g.limit : Math.min(g.limit, g.share);
          facts.set(count(g.inflight), count(g.limit), g.fenced ? '0' : count(Math.max(0, ceiling - g.inflight)), count(g.waiting ?? 0),
            g.lastRtt > 0 ? millis(g.lastRtt) : '–', g.rttNoload > 0 ? millis(g.rttNoload) : '–',
            g.share === undefined ? '–' : `${count(g.share)} of ${count(g.lGlobal)}`, g.nodes === undefined ? '–' : count(g.nodes));
          write(badge, g.fenced ? 'FENCED' : g.inflight >= ceiling ? 'full' : 'open');
          badge.classList.toggle('trouble', g.fenced === true);
          lines.update(past.guards.get(g.name));
        },
      };
    }, 'No policy here guards what is in flight. One with concurrency or distributedConcurrency appears here.');
    const fences = table('Latest fences', [
      { label: 'Guard', put: (td, f) => putName(td, f.guard) },
      { label: 'Fenced at', class: 'num', put: (td, f) => putText(td, timeOf(f.at)) },
    ], 'No guard was fenced.');
    const fencesCard = card('Latest fences', fences.el);
    const el = make('div', { class: 'view' }, list.el, fencesCard.el);
    return {
      el,
      update(s) {
        const mine = s.guards.filter((g) => wanted(g.name));
        list.update(identified(mine));
        fencesCard.el.hidden = mine.length === 0;
        fences.update(s.recentFences.slice(-5).reverse().map((f, i) => ({ id: f.at + ' ' + f.guard + ' ' + i, ...f })));
      },
    };
  }

  const METERS = new Set(['tokenBudget', 'fleetBudget']);
  function budgets() {
    const list = several((meter) => {
      const facts = numbers(['Budget of a key', 'Booked in this window', 'Burn', 'Debits', 'Refused']);
      const burn = chart('Burn of ' + readable(meter.name),
        [{ name: 'units', label: 'Tokens', class: 'calm', area: true }], (v) => rate(v) + '/s', 1);
      const keys = table('Keys of ' + readable(meter.name) + ' that were refused', [
        { label: 'Key', put: (td, k) => putKey(td, k.key) },
        { label: 'Refused', class: 'num', put: (td, k) => putText(td, count(k.count)) },
        { label: '', class: 'wide', put: (td, k) => bar(td).set(k.count / k.most, true) },
      ], 'No key has used up its budget in this window.');
      const c = card(readable(meter.name), facts.el, burn.el, keys.el);
      write(c.hint, meter.policyKind === 'fleetBudget' ? 'budgets of a fleet' : 'budgets of this process');
      return {
        el: c.el,
        update(p) {
          const a = p.analytics;
          facts.set(p.limit ? count(p.limit) : '–', count(a.units), rate(rates.get(p.name)?.units) + '/s',
            count(a.allowed), count(a.denied));
          burn.update(past.policies.get(p.name));
          keys.update(a.topDenied.map((k) => ({ id: k.key, most: a.topDenied[0].count, ...k })), 5);
        },
      };
    }, 'No policy here meters tokens. One with tokenBudget or fleetBudget appears here.');
    return { el: list.el, update: (s) => list.update(identified(s.policies.filter((p) => wanted(p.name) && METERS.has(p.policyKind)))) };
  }

  const LEASING = new Set(['twoTier', 'federated']);
  function leases() {
    const rows = table('Leases by policy', [
      { label: 'Policy', put: (td, p) => putName(td, p.name) },
      { label: 'Kind', put: (td, p) => putText(td, readable(kindOf(p), 30)) },
      { label: 'Granted', class: 'num', put: (td, p) => putText(td, count(p.analytics.leases?.granted ?? 0)) },
      { label: 'Units lent', class: 'num', put: (td, p) => putText(td, count(p.analytics.leases?.units ?? 0)) },
      { label: 'Units a lease', class: 'num', put: (td, p) =>
        putText(td, p.analytics.leases ? rate(p.analytics.leases.units / p.analytics.leases.granted) : '–') },
      { label: 'Units lent a second', class: 'num', put: (td, p) => putText(td, rate(rates.get(p.name)?.leased) + '/s') },
      { label: 'Lately', class: 'num', put: (td, p) =>
        putSpark(td, past.policies.get(p.name), 'leased', `units lent by ${readable(p.name)}`) },
      { label: 'Denied', class: 'num', put: (td, p) => putText(td, count(p.analytics.denied)) },
      { label: 'Limit', class: 'num', put: (td, p) => putText(td, p.limit ? count(p.limit) : '–') },
    ], 'No policy here lends. One with twoTier or federated appears here.');
    const c = card('What was lent in this window', rows.el);
    return {
      el: make('div', { class: 'view' }, c.el),
      update(s) {
        const lending = s.policies.filter((p) => wanted(p.name) && (p.analytics.leases || LEASING.has(p.policyKind)));
        rows.update(identified(busiest(lending, ROWS)));
      },
    };
  }

  // --- Denials ----------------------------------------------------------------------------------------------------------

  let feedList = []; // newest first
  let skipped = 0;
  const print = (d) => [d.at, d.policy, d.key, d.lane ?? '', d.decision?.remaining].join('\u0000');

  // denied adds denials, oldest first, and leaves out those of them that are known if they may come twice.
  function denied(events, twice) {
    const known = twice ? new Set(feedList.map((e) => e.print)) : null;
    const fresh = [];
    for (const d of events) {
      const entry = { ...d, key: String(d.key).slice(0, 1024), print: print(d).slice(0, 2048) };
      if (!known?.has(entry.print)) fresh.push(entry);
    }
    feedList = fresh.reverse().concat(feedList);
    if (twice) feedList.sort((a, b) => b.at - a.at);
    feedList.length = Math.min(feedList.length, FEED);
  }
  const feedHint = () => (skipped ? `a sample: ${count(skipped)} more were left out` : 'as they happen');

  function feedTable() {
    const columns = ['Time', 'Policy', 'Key', 'Axis', 'Remaining', 'Retry in'];
    const head = make('tr', { role: 'row' },
      ...columns.map((c, i) => make('th', { scope: 'col', role: 'columnheader', class: i > 3 ? 'num' : null }, c)));
    const body = make('tbody', { role: 'rowgroup', id: 'feed' });
    const grid = make('table', { role: 'table', 'aria-label': 'Live denials' }, make('thead', { role: 'rowgroup' }, head), body);
    const none = make('p', { class: 'empty' }, 'No denial yet.');
    const box = make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Live denials, newest first' }, grid);
    let rows = []; // {entry, tr}, as shown
    function row(d) {
      const cells = columns.map((label, i) => make('td', { role: 'cell', 'data-label': label, class: i > 3 ? 'num' : null }));
      putText(cells[0], timeOf(d.at));
      putName(cells[1], d.policy);
      putKey(cells[2], d.key);
      putText(cells[3], d.lane ? readable(d.lane, 20) : '–');
      putText(cells[4], count(d.decision?.remaining));
      putText(cells[5], d.decision?.retryAfterMs > 0 ? span(d.decision.retryAfterMs) : '–');
      return make('tr', { role: 'row' }, ...cells);
    }
    return {
      el: make('div', {}, box, none),
      update() {
        const list = filter ? feedList.filter((d) => wanted(d.policy)) : feedList;
        const have = new Map(rows.map((r) => [r.entry, r.tr]));
        const keep = new Set(list);
        for (const r of rows) if (!keep.has(r.entry)) r.tr.remove();
        rows = list.map((entry, at) => {
          const tr = have.get(entry) ?? row(entry);
          if (body.children[at] !== tr) body.insertBefore(tr, body.children[at] ?? null);
          return { entry, tr };
        });
        box.hidden = list.length === 0;
        none.hidden = list.length > 0;
      },
    };
  }

  // --- Tabs -------------------------------------------------------------------------------------------------------------

  const views = [
    ['overview', 'Overview', overview], ['latency', 'Latency', latency], ['fairness', 'Fairness', fairness],
    ['capacity', 'Capacity', capacity], ['guards', 'Guards', guards], ['budgets', 'Budgets', budgets], ['leases', 'Leases', leases],
  ].map(([id, label, create]) => ({ id, label, ...create() }));
  const tabs = byId('tabs'), main = byId('main');
  let active = null;
  for (const view of views) {
    view.tab = make('button', { type: 'button', role: 'tab', id: 'tab-' + view.id, 'aria-controls': 'view-' + view.id }, view.label);
    view.panel = make('div', { role: 'tabpanel', id: 'view-' + view.id, 'aria-labelledby': 'tab-' + view.id, hidden: true }, view.el);
    view.tab.addEventListener('click', () => open(view, true));
    tabs.append(view.tab);
    main.append(view.panel);
  }
  function open(view, remembered) {
    active = view;
    for (const v of views) {
      const on = v === view;
      set(v.tab, { 'aria-selected': String(on), tabindex: on ? '0' : '-1' });
      v.panel.hidden = !on;
    }
    view.tab.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    document.title = view.label + ' · ThrottleKit';
    if (remembered) history.replaceState(null, '', '#' + view.id);
    render(true);
  }
  tabs.addEventListener('keydown', (e) => {
    const at = views.indexOf(active), n = views.length;
    const to = { ArrowLeft: at - 1 + n, ArrowRight: at + 1, Home: 0, End: n - 1 }[e.key];
    if (to === undefined || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    open(views[to % n], true);
    active.tab.focus();
  });
  const named = () => views.find((v) => '#' + v.id === location.hash);
  window.addEventListener('hashchange', () => { if (named()) open(named(), false); });

  // --- Drawing ----------------------------------------------------------------------------------------------------------

  let paused = false, drawing = 0;
  const facts = byId('facts');
  const fact = (label) => {
    const dd = make('dd');
    const row = make('div', {}, make('dt', {}, label), dd);
    facts.append(row);
    return (text, trouble = false) => { write(dd, text); dd.classList.toggle('trouble', trouble); row.hidden = text === ''; };
  };
  const head = {
    backend: fact('Store'), fail: fact('When it fails'), policies: fact('Policies'), window: fact('Window'), time: fact('Server time'),
  };

  function render(now) {
    if (!seen || (paused && !now) || document.hidden || drawing) return;
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      const m = seen.meta, h = seen.health;
      write(byId('node'), m.nodeId ? readable(m.nodeId, 40) : '');
      const down = seen.store && !seen.store.answering;
      head.backend(h ? readable(h.backend, 20) + (down ? ', not answering' : '') : '', down);
      const stood = h?.failModeActivations > 0;
      head.fail(h ? `fail ${readable(h.failMode, 10)}` + (stood ? ` · ${count(h.failModeActivations)} decided so` : '') : '', stood);
      head.policies(count(seen.policies.length));
      head.window(`${span(m.windowMs - (((m.generatedAt % m.windowMs) + m.windowMs) % m.windowMs))} of ${span(m.windowMs)} left`);
      head.time(timeOf(m.generatedAt));
      active.update(seen);
    });
  }

  byId('pause').addEventListener('click', (e) => {
    paused = !paused;
    set(e.currentTarget, { 'aria-pressed': String(paused) });
    tell();
    render(true);
  });
  byId('filter').addEventListener('input', (e) => { filter = e.target.value.trim().toLowerCase(); render(true); });
  byId('logout').addEventListener('click', async () => {
    await fetch('/dashboard/logout', { method: 'POST' }).catch(() => {});
    location.reload();
  });
  document.addEventListener('visibilitychange', () => render(false));

  const THEMES = ['auto', 'light', 'dark'];
  const stored = () => { try { return localStorage.getItem('throttlekit-theme'); } catch { return null; } };
  function theme(name) {
    set(document.documentElement, { 'data-theme': name === 'auto' ? null : name });
    write(byId('theme'), 'Theme: ' + name);
    byId('theme').dataset.next = THEMES[(THEMES.indexOf(name) + 1) % THEMES.length];
  }
  byId('theme').addEventListener('click', (e) => {
    const next = e.currentTarget.dataset.next;
    theme(next);
    try { localStorage.setItem('throttlekit-theme', next); } catch { /* a browser that stores nothing forgets it */ }
  });
  theme(THEMES.includes(stored()) ? stored() : 'auto');

  // --- The connection ---------------------------------------------------------------------------------------------------

  let source = null, state = 'connecting', watchdog = 0, retry = 0, delay = 500, crowded = false;
  const STATES = { connecting: 'Connecting', live: 'Live', polling: 'Refreshing every 3 s', away: 'Reconnecting' };
  function tell() {
    const status = byId('status');
    set(status, { 'data-state': state });
    write(status, paused && state === 'live' ? 'Paused' : STATES[state]);
    const away = byId('away');
    away.hidden = state !== 'away';
    if (state === 'away') {
      const last = seen ? ` These are the last figures, from ${timeOf(seen.meta.generatedAt)}.` : '';
      write(away, `The server does not answer.${last} The page reconnects by itself.`);
    }
    main.classList.toggle('stale', state === 'away' && seen !== null);
  }
  function turn(next) { if (state !== next) { state = next; tell(); } }

  function take(snapshot) {
    if (!Array.isArray(snapshot?.policies) || !snapshot.meta) return;
    for (const list of ['guards', 'stats', 'recentDenials', 'recentFences']) snapshot[list] ??= [];
    seen = snapshot;
    remember(snapshot);
    render(false);
  }
  function alive() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, Math.max(5000, 4 * intervalMs));
    delay = 500;
    crowded = false;
    turn('live');
  }
  function lost() {
    source?.close();
    source = null;
    clearTimeout(watchdog);
    clearTimeout(retry);
    if (!crowded) turn('away');
    retry = setTimeout(probe, delay * (0.75 + Math.random() / 2));
    delay = Math.min(4000, 1.6 * delay);
  }
  // probe asks for one snapshot before it opens a stream, because a stream that is refused does not say why.
  async function probe() {
    try {
      const answer = await fetch('/dashboard/snapshot', { cache: 'no-store', signal: AbortSignal.timeout(10000) });
      if (answer.status === 401) { location.reload(); return; } // the form
      if (!answer.ok) throw new Error();
      const snapshot = await answer.json();
      take(snapshot);
      denied(snapshot.recentDenials, true);
    } catch { crowded = false; lost(); return; }
    connect();
  }
  function connect() {
    source?.close();
    source = new EventSource('/dashboard/events');
    let greeted = false;
    source.addEventListener('error', () => {
      if (!greeted && seen) { // a snapshot is to be had, a stream is not
        crowded = true;
        delay = 3000;
        turn('polling');
      }
      lost();
    });
    const on = (name, handle) => source.addEventListener(name, (e) => { greeted = true; alive(); handle(JSON.parse(e.data)); });
    on('hello', (hello) => { intervalMs = hello.intervalMs; byId('logout').hidden = !hello.login; });
    on('snapshot', take);
    let joined = 0; // what was denied until then may come twice: among the recent ones, and in the stream
    on('recent', (d) => { joined = seen?.meta.generatedAt ?? 0; denied(d.events, true); feedNow(); });
    on('denials', (d) => { denied(d.events, d.events.some((e) => e.at <= joined)); skipped += d.skipped; feedNow(); });
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, 10000);
  }
  let feeding = 0;
  function feedNow() {
    if (paused || document.hidden || feeding || active.id !== 'overview') return;
    feeding = requestAnimationFrame(() => { feeding = 0; active.feed?.(); });
  }
  window.addEventListener('pagehide', () => { source?.close(); clearTimeout(retry); clearTimeout(watchdog); });
  window.addEventListener('pageshow', (e) => { if (e.persisted) connect(); });

  open(named() ?? views[0], false);
  connect();
})();

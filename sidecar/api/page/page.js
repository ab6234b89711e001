// The status page. It draws what /v1/events says and nothing else. Every text
// that comes from a node goes into the page as text, never as markup.

const $ = (id) => document.getElementById(id);
const state = { status: null, at: 0, access: null, history: [], token: sessionStorage.getItem('tandem-token') || '', fresh: new Set() };

// --- Drawing ---------------------------------------------------------------

// h describes an element: tag, attributes, children (elements or texts).
const h = (tag, attributes, ...children) => ({ tag, attributes: attributes || {}, children: children.flat().filter((c) => c !== null && c !== undefined && c !== false && c !== '') });

// draw makes the children of a place like the description and keeps elements
// that are there already, so that focus and selection survive.
function draw(place, children) {
  children = [children].flat();
  children.forEach((want, i) => {
    const have = place.childNodes[i];
    if (typeof want !== 'object') {
      if (have && have.nodeType === Node.TEXT_NODE) { if (have.data !== String(want)) have.data = String(want); return; }
      const text = document.createTextNode(String(want));
      if (have) have.replaceWith(text); else place.append(text);
      return;
    }
    let element = have;
    if (!have || have.nodeType !== Node.ELEMENT_NODE || have.localName !== want.tag || have.dataset.key !== want.attributes['data-key']) {
      element = document.createElement(want.tag);
      if (have) have.replaceWith(element); else place.append(element);
    }
    for (const { name } of [...element.attributes]) if (!(name in want.attributes)) element.removeAttribute(name);
    for (const [name, value] of Object.entries(want.attributes)) {
      if (value === undefined || value === null || value === false) element.removeAttribute(name);
      else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
    }
    draw(element, want.children);
  });
  while (place.childNodes.length > children.length) place.lastChild.remove();
}

const span = (ms) => {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60e3) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  if (ms < 3600e3) return `${Math.floor(ms / 60e3)} min`;
  if (ms < 864e5) return `${Math.floor(ms / 3600e3)} h ${Math.floor(ms % 3600e3 / 60e3)} min`;
  return `${Math.floor(ms / 864e5)} d ${Math.floor(ms % 864e5 / 3600e3)} h`;
};
const two = (n) => String(n).padStart(2, '0');
const clock = (d) => `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
// moment is a time of day, with the date when it is not today's.
const moment = (value) => {
  const d = new Date(value);
  return d.toDateString() === new Date().toDateString() ? clock(d) : `${d.getDate()} ${d.toLocaleString('en', { month: 'short' })} ${clock(d)}`;
};
const list = (value) => value || [];
const tag = (kind, text) => h('span', { class: `tag ${kind}` }, text);
const may = (level) => state.access && (level === 'operate' ? state.access.token_operate : true);
const healthKind = { healthy: 'good', degraded: 'warn', 'not-serving': 'bad', unknown: 'bad' };
const healthSign = { healthy: '✓', degraded: '!', 'not-serving': '✕', unknown: '?' };
const groupOf = (resource) => resource.startsWith('vip/') ? resource.slice(4) : '';
const vips = (s) => list(s.leases).filter((l) => groupOf(l.resource));

function drawAll() {
  const s = state.status;
  if (!s) return;
  draw($('cluster'), [`${s.cluster} · ${s.mode}`]);
  drawNotices(s);
  draw($('clients'), vips(s).map(addressCard));
  draw($('nodes'), list(s.nodes).map((n) => nodeCard(s, n)));
  draw($('sites'), siteNames(s).map((name) => siteCard(s, name)));
  const next = list(s.next_failure);
  draw($('next'), (next.length ? next : [s.health === 'unknown' ? 'Unknown, since it is not known how the cluster is.' : 'Not known while something is changing.']).map((t) => h('li', null, t)));
  $('held-title').hidden = list(s.held).length === 0;
  draw($('held'), heldAlike(list(s.held)).map((x) => h('li', null, h('code', null, x.server), ` on ${x.node}: ${x.kind}`, x.detail && ` (${x.detail})`)));
  drawSwitch(s);
  drawTools(s);
  drawTimeline();
  drawWires(s);
}

// heldAlike joins what is held in the same way on several nodes.
const heldAlike = (all) => [...Map.groupBy ? Map.groupBy(all, (x) => JSON.stringify([x.server, x.kind, x.detail])).values() : all.map((x) => [x])].map((same) => ({ ...same[0], node: same.map((x) => x.node).join(', ') }));

function drawNotices(s) {
  const notices = list(s.problems).map((p) => [p.startsWith('unsafe') ? 'bad' : healthKind[s.health] || 'bad', p]);
  if (s.unsafe && !list(s.problems).some((p) => p.startsWith('unsafe'))) notices.push(['bad', 'Unsafe: one of a pair goes on alone. While the link between two healthy nodes is cut, two may hold the address.']);
  if (s.observe) notices.push(['warn', 'Observing only: nothing is touched.']);
  if (s.quarantine_ms > 0) notices.push(['warn', `Just started: this voter keeps silent for another ${span(s.quarantine_ms)}.`]);
  if (s.paused_until) notices.push(['warn', `Paused: no automatic site decision ${pausedUntil(s)}.`]);
  for (const g of list(s.groups)) if (g.ack_needed) notices.push(['bad', `${g.group}: too many switches in a short time. Nothing switches by itself until somebody says: tandem ack.`]);
  draw($('notices'), notices.map(([kind, text]) => h('p', { class: `notice ${kind}` }, text)));
}

const pausedUntil = (s) => new Date(s.paused_until).getTime() <= 0 ? 'until somebody resumes' : `until ${moment(s.paused_until)}`;

function addressCard(l) {
  const left = l.holder ? Math.max(0, l.expires_in_ms) : 0;
  const nobody = l.source === 'unknown' ? 'unknown' : 'nobody';
  return h('article', { class: `card ${l.holder ? 'live' : 'off'}`, 'data-key': l.resource, 'data-address': groupOf(l.resource) },
    h('header', null, h('h3', null, list(l.addresses).map((a) => a.replace(/\/(32|128)$/, '')).join(', ') || l.resource), tag(l.holder ? (l.alone ? 'bad' : 'good') : 'bad', l.holder ? (l.alone ? 'held alone' : 'held') : nobody)),
    h('p', { class: 'fact' }, nobody === 'unknown' && !l.holder ? 'whom clients reach is not known here' : 'clients reach ', h('b', null, l.holder || (nobody === 'unknown' ? '' : nobody)), l.holder && ` · epoch ${l.epoch}`, l.fence && ` · fence: ${l.fence}`),
    l.holder && l.length_ms > 0 && h('meter', { min: 0, max: l.length_ms, low: l.length_ms * 0.2, high: l.length_ms * 0.4, optimum: l.length_ms, value: left, 'aria-label': `lease of ${l.resource}` }),
    h('p', { class: 'fact' }, l.holder ? `lease ${l.resource}: ${span(left)} left of ${span(l.length_ms)}` : nobody === 'unknown' ? `lease ${l.resource}: too few voters are heard to tell who holds it` : `lease ${l.resource}: no holder`));
}

function nodeCard(s, n) {
  const holds = vips(s).filter((l) => l.holder === n.name);
  const free = vips(s).filter((l) => l.holder && l.holder !== n.name);
  const [kind, word] = !n.alive ? ['bad', n.reason || 'silent'] : n.maintenance ? ['warn', 'maintenance'] : n.role !== 'lb' ? ['good', 'alive'] : n.eligible ? ['good', holds.length ? 'holds' : 'ready'] : ['bad', n.reason || 'not eligible'];
  const ha = n.haproxy;
  return h('article', { class: `card ${holds.length ? 'live' : n.alive ? '' : 'off'}`, 'data-key': n.name, 'data-node': n.name },
    h('header', null, h('h3', null, n.name), tag(kind, word)),
    h('p', { class: 'fact' }, { lb: 'load balancer', witness: 'witness', site: 'site hooks' }[n.role] || 'role unknown', n.site && ` at ${n.site}`, n.voter ? '' : ' · no vote', n.name === s.node ? ' · this node' : n.age_ms < 0 ? ' · never heard' : ` · ${n.alive ? '' : 'last '}heard ${span(n.age_ms)} ago`),
    !ha && n.role !== 'witness' && n.role !== 'site' && h('p', { class: 'fact' }, 'HAProxy: unknown'),
    ha && h('p', { class: `fact ${ha.alive && !ha.reason ? '' : 'bad'}` }, ha.alive ? `HAProxy ${ha.version}, pid ${ha.pid}${ha.reason ? `: ${ha.reason}` : ''}` : `HAProxy: ${ha.reason || 'down'}`),
    ha && n.alive && list(ha.each).map((one) => h('p', { class: `fact ${one.alive && !one.reason ? '' : one.aside ? 'warn' : 'bad'}` }, `${one.name}: ${one.reason || (one.alive ? `pid ${one.pid}` : 'down')}${one.aside ? ' (no virtual IP leads to it)' : ''}`)),
    ha && n.alive && (ha.sessions_left > 0 || ha.sessions_closed > 0) && h('p', { class: 'fact' }, `sessions closed on drained servers: ${ha.sessions_closed || 0}, left at the last look: ${ha.sessions_left || 0}`),
    ha && n.alive && ha.map && h('p', { class: `fact ${ha.map === 'current' ? '' : 'warn'}` }, `active-site map: ${ha.map}`),
    list(n.vips).length > 0 && h('p', { class: 'fact' }, 'carries ', h('b', null, n.vips.join(', '))),
    n.detail && (!n.alive || !n.eligible) && h('p', { class: 'fact bad' }, n.detail),
    list(n.warnings).map((w) => h('p', { class: 'fact warn' }, list(s.problems).some((p) => p.includes(w)) ? w.split(':')[0] : w)),
    may('operate') && n.role === 'lb' && n.alive && free.map((l) => h('button', { type: 'button', 'data-key': l.resource, 'data-do': 'move', 'data-to': n.name, 'data-group': groupOf(l.resource) }, vips(s).length > 1 ? `Move ${groupOf(l.resource)} here` : 'Move address here')));
}

function siteNames(s) {
  const names = [...list(s.sites)];
  for (const v of list(s.views)) if (!names.includes(v.site)) names.push(v.site);
  return names;
}

function siteCard(s, name) {
  const g = s.site || {};
  const others = list(s.groups).filter((o) => o.group !== g.group && o.active === name).map((o) => o.group);
  const views = list(s.views).filter((v) => v.site === name && !v.stale);
  const gone = list(s.views).filter((v) => v.site === name && v.stale);
  const usable = views.filter((v) => v.usable).length;
  const active = g.active === name && !g.stale;
  const moving = g.phase && g.target === name && !g.stale;
  const [kind, word] = g.stale ? ['bad', g.active === name ? 'active when last heard' : 'unknown'] : moving ? ['warn', g.phase] : active ? usable ? ['good', 'active'] : ['bad', 'active, not usable'] : views.length === 0 ? ['bad', 'not seen'] : usable ? ['good', g.active ? 'standby' : 'usable'] : ['bad', 'not usable'];
  return h('article', { class: `card ${moving ? 'moving' : active ? usable ? 'live' : 'live broken' : usable ? '' : 'off'}`, 'data-key': name, 'data-site': name },
    h('header', null, h('h3', null, `site ${name}`), tag(kind, word)),
    h('p', { class: `fact ${usable === views.length ? '' : 'bad'}` }, views.length ? `usable as seen by ${usable} of ${views.length} load balancers` : 'no load balancer reports what it sees'),
    gone.map((v) => h('p', { class: 'fact' }, `${v.node}, not heard any more, saw it ${v.usable ? 'usable' : 'not usable'} ${span(v.age_ms)} ago`)),
    active && h('p', { class: 'fact' }, g.since && `since ${moment(g.since)} · `, g.reason, g.actor && ` · ${g.actor}`),
    active && !g.phase && g.waiting && h('p', { class: 'fact warn' }, `stays: ${g.waiting}`),
    others.length > 0 && h('p', { class: 'fact' }, g.stale ? 'was also active for ' : 'also active for ', h('b', null, others.join(', ')), g.stale && ' when last heard'),
    views.length > 0 && h('dl', { class: 'backends' }, backends(views).flatMap(([b, counts, short]) => [h('dt', null, b), h('dd', { class: short ? 'bad' : '' }, counts)])),
    may('operate') && !active && !g.phase && !g.stale && h('button', { type: 'button', 'data-do': 'takeover', 'data-site': name, 'data-usable': String(usable > 0) }, 'Take over'));
}

// backends joins what the load balancers see; where they differ, all is shown.
function backends(views) {
  const names = [...new Set(views.flatMap((v) => list(v.backends).map((b) => b.name)))];
  return names.map((name) => {
    const seen = views.map((v) => [v.node, list(v.backends).find((b) => b.name === name)]).filter(([, b]) => b);
    const counts = seen.map(([, b]) => `${b.up}/${b.total}`);
    const same = new Set(counts).size === 1;
    return [name, same ? `${counts[0]} up` : seen.map(([n], i) => `${n} ${counts[i]}`).join(', '), seen.some(([, b]) => b.up < b.total)];
  });
}

let phasesSeen = [];
function drawSwitch(s) {
  const g = list(s.groups).find((x) => x.phase);
  if (!g) {
    if (phasesSeen.length) { say(`Switch over: ${s.site.active ? `site ${s.site.active} is active` : 'no site is active'} (${s.site.reason}). Phases: ${phasesSeen.join(' → ')}.`); phasesSeen = []; }
    return;
  }
  if (phasesSeen.at(-1) !== g.phase) phasesSeen.push(g.phase);
  say(`Switching ${g.group} to ${g.target}: ${phasesSeen.join(' → ')}${g.waiting ? ` (${g.waiting})` : ''} …`);
}

const say = (text) => draw($('progress'), text ? [h('p', null, text)] : []);

function drawTools(s) {
  const pause = $('pause');
  pause.hidden = !may('operate');
  pause.dataset.do = s.paused_until ? 'resume' : 'pause';
  draw(pause, [s.paused_until ? 'Resume' : 'Pause automatics']);
  $('key').hidden = !state.access || (!state.access.token_operate && state.access.level !== 'open');
  draw($('key'), [state.access && state.access.level === 'operate' && state.token ? 'Forget token' : 'Enter token']);
}

// notDone says whether somebody asked for something that was not carried out.
const notDone = (t) => /-(refused|unanswered)$/.test(t.event);

function drawTimeline() {
  const items = state.history.slice(-30).reverse();
  draw($('timeline'), items.length ? items.map((t) => h('li', { class: `${state.fresh.has(t) ? 'fresh ' : ''}${notDone(t) ? 'refused' : ''}`, 'data-key': `${t.at} ${t.resource} ${t.event} ${t.phase || ''} ${t.node}` },
    h('time', { datetime: t.at }, moment(t.at)),
    h('span', null, h('b', null, t.resource), ` ${t.event} ${t.phase || ''} `, t.from && t.to ? `${t.from} → ${t.to}` : t.to ? `→ ${t.to}` : t.from ? `${t.from} →` : ''),
    h('span', { class: 'why' }, t.reason, t.actor && ` · by ${t.actor}`, t.epoch ? ` · epoch ${t.epoch}` : '', ` · told by ${t.node}`, t.detail && ` · ${t.detail}`))) : [h('li', null, 'Nothing since this node started.')]);
}

// drawWires draws from each address to its holder, and from each load balancer
// to the sites.
function drawWires(s) {
  const svg = $('wires');
  const box = svg.getBoundingClientRect();
  const edge = (element, bottom) => { const r = element.getBoundingClientRect(); return [r.left + r.width / 2 - box.left, (bottom ? r.bottom : r.top) - box.top]; };
  const paths = [];
  const wire = (from, to, kind) => {
    if (!from || !to) return;
    const [x1, y1] = edge(from, true);
    const [x2, y2] = edge(to, false);
    const bend = Math.max(12, (y2 - y1) / 2);
    paths.push([`M${x1} ${y1} C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`, kind]);
  };
  const find = (attribute, value) => [...document.querySelectorAll(`[data-${attribute}]`)].find((e) => e.tagName === 'ARTICLE' && e.dataset[attribute] === value);
  for (const l of vips(s)) wire($('who'), find('address', groupOf(l.resource)), l.holder ? 'live' : 'spare');
  for (const l of vips(s)) for (const n of list(s.nodes)) if (n.role === 'lb') wire(find('address', groupOf(l.resource)), find('node', n.name), l.holder === n.name ? 'live' : 'spare');
  for (const n of list(s.nodes)) {
    if (n.role !== 'lb' || !n.alive) continue;
    for (const name of siteNames(s)) {
      const g = s.site || {};
      const holds = vips(s).some((l) => l.holder === n.name);
      wire(find('node', n.name), find('site', name), g.phase && g.target === name ? 'moving' : g.stale ? 'spare' : g.active === name && holds ? (list(s.views).some((v) => v.node === n.name && v.site === name && v.usable && !v.stale) ? 'live' : 'broken') : g.active === name ? '' : 'spare');
    }
  }
  while (svg.childNodes.length > paths.length) svg.lastChild.remove();
  paths.forEach(([d, kind], i) => {
    if (!svg.childNodes[i]) svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'path'));
    svg.childNodes[i].setAttribute('d', d);
    svg.childNodes[i].setAttribute('class', kind);
  });
}

// --- Talking to the node ---------------------------------------------------

const headers = () => state.token ? { Authorization: `Bearer ${state.token}` } : {};

async function follow() {
  for (;;) {
    try {
      state.access = await (await fetch('/v1/access', { headers: headers() })).json();
      if (state.access.level === 'open') { await needToken(); continue; }
      const past = await fetch('/v1/history?limit=30', { headers: headers() });
      if (past.ok) state.history = (await past.json()).transitions;
      const stream = await fetch('/v1/events', { headers: headers() });
      if (!stream.ok) throw new Error((await stream.json()).message);
      await read(stream.body.getReader());
      throw new Error('the stream ended');
    } catch (problem) {
      lost(problem);
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const timer = setTimeout(() => reader.cancel(), 5000);
    const { done, value } = await reader.read();
    clearTimeout(timer);
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const parts = rest.split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const event = /^event: (.*)$/m.exec(part);
      const data = /^data: (.*)$/m.exec(part);
      if (event && data) heard(event[1], JSON.parse(data[1]));
    }
  }
}

function heard(event, data) {
  if (event === 'transition') {
    state.history.push(data);
    state.fresh.add(data);
    setTimeout(() => state.fresh.delete(data), 4000);
    if (state.history.length > 200) state.history.splice(0, 100);
    drawTimeline();
    return;
  }
  state.status = data;
  state.at = performance.now();
  document.body.classList.remove('old');
  drawAll();
  age();
}

function lost(problem) {
  if (!state.status) { draw($('notices'), [h('p', { class: 'notice bad' }, `Nothing is known: ${problem.message || problem}`)]); return; }
  age();
}

// age says how old the picture is, and greys it out when it is too old to act
// on.
function age() {
  if (!state.status) return;
  const ms = performance.now() - state.at;
  const old = ms > 3000;
  const health = old ? 'unknown' : state.status.health;
  document.body.classList.toggle('old', old);
  document.title = `${healthSign[health] || '?'} tandem ${state.status.cluster}`;
  $('health').className = `badge ${healthKind[health] || 'bad'}`;
  draw($('health'), [`${healthSign[health] || '?'} ${health}${old ? `, was ${state.status.health}` : ''}`]);
  for (const button of document.querySelectorAll('button[data-do]')) button.disabled = old;
  draw($('seen'), [ms > 3000 ? `as ${state.status.node} saw it ${span(ms)} ago: no news since` : `live, as ${state.status.node} sees it · ${state.status.version}`]);
}

// --- Doing -----------------------------------------------------------------

function ask(dialog) {
  return new Promise((done) => {
    dialog.returnValue = 'cancel';
    dialog.addEventListener('close', () => done(dialog.returnValue === 'ok'), { once: true });
    dialog.showModal();
  });
}

async function needToken(text) {
  $('ask-token-text').textContent = text || 'To read here, a token is needed (TANDEM_API_READ_TOKEN or TANDEM_API_TOKEN).';
  $('token').value = '';
  const ok = await ask($('ask-token')) && $('token').value !== '';
  const given = $('token').value;
  $('token').value = '';
  if (!ok) return false;
  state.token = given;
  sessionStorage.setItem('tandem-token', state.token);
  return true;
}

function forgetToken() {
  state.token = '';
  sessionStorage.removeItem('tandem-token');
}

const questions = {
  takeover: (d) => [`Make site ${d.site} active?`, `Site ${state.status.site.active || 'none'} is active now. ${d.usable === 'true' ? '' : 'No load balancer sees the new site usable.'}`, 'Take over', { site: d.site }],
  move: (d) => [`Move ${d.group} to ${d.to}?`, 'Connections of the old holder go on there for a while; new ones come to the new holder.', 'Move', { group: d.group, to: d.to }],
  pause: () => ['Pause automatic site decisions?', 'Leases are still kept: a virtual IP still fails over.', 'Pause', {}],
  resume: () => ['Make automatic site decisions again?', 'What waited is decided at once.', 'Resume', {}],
};

async function act(button) {
  const kind = button.dataset.do;
  const [title, text, word, body] = questions[kind](button.dataset);
  $('confirm-title').textContent = title;
  $('confirm-text').textContent = text;
  $('confirm-ok').textContent = word;
  $('force').checked = false;
  $('force-label').hidden = !(kind === 'takeover' && button.dataset.usable === 'false');
  if (!await ask($('confirm'))) return;
  if ($('force').checked) body.force = true;
  if (!state.token && !await needToken('To change something, the operate token is needed (TANDEM_API_TOKEN).')) return;
  say(`${word} …`);
  try {
    const answer = await fetch(`/v1/${kind}`, { method: 'POST', headers: { ...headers(), 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    const result = await answer.json();
    if (answer.status === 401) forgetToken();
    say(`${result.ok ? '✓' : '✕ refused:'} ${result.message || result.reason || word}`);
    state.access = await (await fetch('/v1/access', { headers: headers() })).json();
    drawAll();
  } catch (problem) {
    say(`✕ no answer: ${problem.message}`);
  }
}

document.addEventListener('click', async (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.do) { await act(button); return; }
  if (button.id !== 'key') return;
  if (state.access && state.access.level === 'operate') forgetToken(); else if (!await needToken('It is kept until this tab is closed.')) return;
  state.access = await (await fetch('/v1/access', { headers: headers() })).json();
  say(state.token && state.access.level !== 'operate' && !(state.access.level === 'read' && !state.access.token_operate) ? `This token may ${state.access.level === 'open' ? 'nothing here' : state.access.level}.` : '');
  drawAll();
});
addEventListener('resize', () => state.status && drawWires(state.status));
setInterval(age, 500);
follow();

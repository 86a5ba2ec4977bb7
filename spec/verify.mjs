// Checks the models in this folder and compares what the checker finds with the tables
// below. `make verify` runs it; arguments pick modules by a part of their names.
import { readFileSync } from 'node:fs';
import { check_spec_with_cfg, initSync } from 'tla-checker';

const here = (name) => new URL(name, import.meta.url);
const read = (name) => readFileSync(here(name), 'utf8');

// More than any model here needs; a search that is cut short fails.
const MAX_STATES = 1_000_000;
const MAX_DEPTH = 1_000_000;

const names = (n) => `{${Array.from({ length: n }, (_, i) => `x${i + 1}`).join(', ')}}`;
const numbers = (n) => `{${Array.from({ length: n }, (_, i) => i + 1).join(', ')}}`;
const bool = (b) => (b ? 'TRUE' : 'FALSE');

/** Runs with the configuration as committed, which names what must hold. */
const committed = (module, states) => ({ module, label: 'as committed', states });

/** A bound that holds in all states, of which there are so many, and is reached in one. */
const tight = (module, constants, states) => [
  { module, constants, states },
  { module, constants, breaks: 'NotReached' },
];

/** Windowed leasing with its constants; `most` is what one window admits if less than the bound. */
function windowed(module, nodes, limit, batch, states, { partial = false, returns, most } = {}) {
  const constants = { [returns === undefined ? 'Nodes' : 'Regions']: names(nodes), Limit: limit, Batch: batch, Partial: bool(partial) };
  if (returns !== undefined) constants.Returns = bool(returns);
  if (most === undefined) return tight(module, constants, states);
  return [
    { module, constants, states, also: `admitted <= ${most}` },
    { module, constants, breaks: `admitted <= ${most - 1}` },
  ];
}

const carryover = (...run) => windowed('DistributedLeasing', ...run);
const coupled = (...run) => windowed('GaleWindowCoupledLeasing', ...run);
const federated = (n, l, b, states, more) => windowed('GaleFederatedLeasing', n, l, b, states, { returns: false, ...more });
const returning = (n, l, b, states, more) => windowed('GaleFederatedLeasing', n, l, b, states, { returns: true, ...more });

const late = (nodes, limit, batch, lowWater, waiting, isCoupled, states) => tight('GaleLateLeasing', {
  Nodes: names(nodes), Limit: limit, Batch: batch, LowWater: lowWater, Waiting: waiting, Coupled: bool(isCoupled),
}, states);

/** A bucket that refills `rate` parts in a tick, where `unit` parts make a unit; `shared` is the burst that nodes lease from. */
const bucketOf = (nodes, batch, burst, shared, rate, unit, life, { fromSend = true, waiting = batch, atDebit = true } = {}) => ({
  Nodes: names(nodes), Batch: batch, Burst: burst, Shared: shared, Rate: rate, Unit: unit, Life: life,
  FromSend: bool(fromSend), Waiting: waiting, AtDebit: bool(atDebit),
});
const bucket = (states, ...shape) => tight('GaleTimeCoupledLeasing', bucketOf(...shape), states);
const unsound = (why, ...shape) => ({ module: 'GaleTimeCoupledLeasing', constants: bucketOf(...shape), breaks: 'Envelope', why });

/** A log that looks back `shared` ticks. */
const logOf = (nodes, batch, limit, window, shared, life, { fromSend = true } = {}) => ({
  Nodes: names(nodes), Batch: batch, Limit: limit, Window: window, Shared: shared, Life: life, FromSend: bool(fromSend),
});
const log = (states, ...shape) => tight('GaleTimeCoupledLog', logOf(...shape), states);
const unsoundLog = (why, ...shape) => ({ module: 'GaleTimeCoupledLog', constants: logOf(...shape), breaks: 'WithinWindow', why });

/** A token budget with its constants; `broken` names the rule that does not hold. */
const budgetOf = (holders, budget, largest, batch, broken = 'none') => ({
  Holders: names(holders), Budget: budget, Largest: largest, Batch: batch, Broken: `"${broken}"`,
});
const metered = (states, ...shape) => tight('TaleGrantedMeter', budgetOf(...shape), states);
const overshoots = (why, ...shape) => ({ module: 'TaleGrantedMeter', constants: budgetOf(...shape), breaks: 'Overshoot', why });

/** A ceiling that a fleet shares, beats being answered at once. */
const ceilingOf = (nodes, limit, split, broken = 'none') => ({
  Nodes: numbers(nodes), Limit: limit, Split: `"${split}"`, Broken: `"${broken}"`,
});
const ceiling = (states, ...shape) => [
  ...tight('GaleHeartbeatLeasing', ceilingOf(...shape), states),
  { module: 'GaleHeartbeatLeasing', constants: ceilingOf(...shape), breaks: 'SharesNotReached' },
];
const overCeiling = (breaks, why, ...shape) => ({ module: 'GaleHeartbeatLeasing', constants: ceilingOf(...shape), breaks, why });

/** The same with answers that take their time; `grants` bounds those that each node is sent, or if `trim`, that matter yet. */
const handoffOf = (nodes, limit, grants, trim = false, broken = 'none') => ({
  Nodes: names(nodes), Limit: limit, Grants: grants, Trim: bool(trim), Broken: `"${broken}"`,
});
const handoff = (states, ...shape) => tight('GaleHeartbeatHandoff', handoffOf(...shape), states);
const overHandoff = (breaks, why, ...shape) => ({ module: 'GaleHeartbeatHandoff', constants: handoffOf(...shape), breaks, why });

const table = [
  committed('DistributedLeasing', 31),
  carryover(2, 4, 2, 31),
  carryover(3, 6, 3, 441),
  carryover(5, 10, 2, 992),
  carryover(4, 12, 4, 10432),
  carryover(1, 8, 2, 19),
  carryover(2, 8, 2, 55),
  carryover(4, 8, 2, 344),
  carryover(8, 8, 2, 8762),
  carryover(3, 5, 1, 6),
  carryover(2, 5, 2, 31, { most: 6 }), // the batch does not divide the limit
  carryover(2, 5, 2, 40, { partial: true }),

  committed('GaleWindowCoupledLeasing', 27),
  coupled(2, 4, 2, 8),
  coupled(3, 6, 3, 27),
  coupled(5, 10, 2, 112),
  coupled(4, 12, 4, 256),
  coupled(1, 8, 2, 9),
  coupled(2, 8, 2, 16),
  coupled(4, 8, 2, 48),
  coupled(8, 8, 2, 303),
  coupled(3, 5, 1, 6),
  coupled(2, 5, 2, 8, { most: 4 }), // the fifth unit is stranded
  coupled(2, 5, 2, 11, { partial: true }),

  committed('GaleFederatedLeasing', 43),
  federated(2, 4, 2, 8),
  federated(3, 6, 3, 27),
  returning(2, 4, 2, 12),
  returning(3, 6, 3, 43),
  returning(5, 10, 2, 192),
  returning(4, 12, 4, 499),
  returning(1, 8, 2, 16),
  returning(2, 8, 2, 28),
  returning(4, 8, 2, 80),
  returning(8, 8, 2, 443),
  returning(3, 5, 1, 6),
  returning(2, 5, 2, 16, { partial: true }),
  returning(3, 6, 3, 43, { partial: true }),
  returning(4, 12, 4, 499, { partial: true }),

  committed('GaleLateLeasing', 109),
  late(2, 4, 2, 0, 0, false, 187),
  late(2, 4, 2, 1, 0, false, 539),
  late(3, 6, 2, 0, 0, false, 1396),
  late(2, 4, 2, 0, 0, true, 43),
  late(2, 4, 2, 0, 1, true, 109),
  late(2, 4, 2, 0, 2, true, 175),
  late(2, 4, 2, 1, 2, true, 207),
  late(3, 6, 3, 0, 1, true, 682),

  committed('GaleTimeCoupledLeasing', 1913),
  bucket(1913, 2, 2, 4, 2, 1, 1, 2),
  bucket(1877, 2, 2, 4, 2, 1, 1, 2, { waiting: 0 }), // every lease is fetched ahead of need
  bucket(124, 1, 4, 4, 2, 1, 1, 2),
  bucket(3410, 3, 1, 3, 2, 1, 1, 1),
  bucket(2782, 2, 2, 3, 2, 1, 2, 2), // one unit every two ticks
  { // half a unit for the delay takes a whole one from the burst, which is half too much
    module: 'GaleTimeCoupledLeasing', constants: bucketOf(2, 2, 3, 2, 1, 2, 1), states: 1234, also: 'excess <= 5',
  },
  { module: 'GaleTimeCoupledLeasing', constants: bucketOf(2, 2, 3, 2, 1, 2, 1), breaks: 'excess <= 4' },
  bucket(3047, 2, 3, 6, 2, 2, 1, 2), // two units every tick
  unsound('burst not reduced', 2, 2, 4, 4, 1, 1, 2),
  unsound('burst reduced by one unit less', 2, 2, 4, 3, 1, 1, 2),
  unsound('credits live a tick longer than was paid for', 2, 2, 4, 2, 1, 1, 3),
  unsound('age counted from arrival', 2, 2, 4, 2, 1, 1, 2, { fromSend: false }),
  unsound('answers that are late count when they arrive', 2, 2, 4, 2, 1, 1, 2, { waiting: 1, atDebit: false }),
  { // but they add little: here 1, where the bound allows for one on each node
    module: 'GaleTimeCoupledLeasing', constants: bucketOf(2, 2, 4, 2, 1, 1, 2, { waiting: 1, atDebit: false }), states: 2437,
    instead: 'excess <= (Burst + 1) * Unit',
  },

  committed('GaleTimeCoupledLog', 1411),
  log(1411, 2, 2, 2, 2, 3, 1),
  log(3208, 2, 2, 2, 2, 4, 2),
  log(5749, 2, 3, 3, 2, 3, 1),
  unsoundLog('log not lengthened', 2, 2, 2, 2, 2, 1),
  unsoundLog('log one tick too short', 2, 2, 2, 2, 3, 2),
  unsoundLog('age counted from arrival', 2, 2, 2, 2, 3, 1, { fromSend: false }),

  committed('TaleGrantedMeter', 908),
  metered(83, 1, 4, 1, 2),
  metered(445, 2, 4, 1, 2),
  metered(908, 2, 4, 2, 2),
  metered(1619, 2, 4, 3, 2), // debits that are larger than grants
  metered(2195, 2, 5, 2, 3), // grants that do not divide the budget
  metered(5536, 3, 4, 2, 2),
  overshoots('grants cross the budget', 2, 4, 1, 2, 'part'),
  overshoots('holders cross their grants', 2, 4, 2, 2, 'own'),
  overshoots('what is given back counts in the next window', 2, 4, 2, 2, 'window'),
  overshoots('a crash gives back what was used', 2, 4, 2, 2, 'lost'),

  committed('GaleHeartbeatLeasing', 76),
  ceiling(76, 2, 4, 'ceil'),
  ceiling(149, 2, 6, 'ceil'),
  ceiling(361, 3, 4, 'ceil'),
  ceiling(1432, 3, 6, 'ceil'),
  ceiling(76, 2, 4, 'equal'),
  ceiling(459, 3, 4, 'equal'), // parts that are not equal
  ceiling(112, 2, 4, 'demand'),
  ceiling(292, 2, 6, 'demand'),
  ceiling(635, 3, 4, 'demand'),
  ceiling(2547, 3, 6, 'demand'),
  ceiling(103, 3, 2, 'demand'),
  { module: 'GaleHeartbeatLeasing', constants: ceilingOf(2, 4, 'ceil', 'flight'), states: 64, instead: 'Sum(inFlight, active) <= 6' },
  overCeiling('InflightCap', 'only shares count as held', 2, 4, 'ceil', 'flight'),
  overCeiling('Sum(inFlight, active) <= 5', 'by half', 2, 4, 'ceil', 'flight'),
  { module: 'GaleHeartbeatLeasing', constants: ceilingOf(2, 4, 'ceil', 'held'), states: 94, instead: 'Sum(inFlight, active) <= 6' },
  overCeiling('GlobalCap', 'what others hold does not count', 2, 4, 'ceil', 'held'),
  overCeiling('NobodyJoins', 'a node with all shares is joined by another', 2, 4, 'ceil'),

  committed('GaleHeartbeatHandoff', 20914),
  { module: 'GaleHeartbeatHandoff', constants: handoffOf(2, 4, 2), breaks: 'NotReached' },
  { module: 'GaleHeartbeatHandoff', constants: handoffOf(2, 4, 3), states: 250624 },
  handoff(12387, 2, 4, 2, true),
  overHandoff('InflightCap', 'what is granted last and what is gone by count as held', 2, 4, 2, false, 'issued'),
  overHandoff('Flying(active) <= 5', 'by half', 2, 4, 2, false, 'issued'),
  overHandoff('InflightCap', 'requests in flight do not count as held', 2, 4, 3, false, 'drain'),
  overHandoff('InflightCap', 'grant and requests are reported one after the other', 2, 4, 3, false, 'torn'),
].flat();

/** The configuration with other constants, checking only these invariants. */
function configure(cfg, constants, listed) {
  let text = cfg.slice(0, cfg.indexOf('INVARIANTS'));
  for (const [name, value] of Object.entries(constants)) {
    const line = new RegExp(`^(\\s+${name} = ).*$`, 'm');
    if (!line.test(text)) throw new Error(`the configuration has no constant ${name}`);
    text = text.replace(line, `$1${value}`);
  }
  return `${text}INVARIANTS\n${listed.map((name) => `    ${name}\n`).join('')}`;
}

/** The module with one more definition. */
function define(source, name, expression) {
  const end = source.lastIndexOf('\n====');
  return `${source.slice(0, end)}\n${name} == ${expression}${source.slice(end)}`;
}

/** What a run checks: what the configuration names and more, or one other thing. */
function invariants(cfg, { also, instead, breaks }) {
  const other = instead ?? breaks;
  if (other) return [other];
  const named = cfg.slice(cfg.indexOf('INVARIANTS')).trim().split(/\s+/).slice(1);
  return also ? [...named, also] : named;
}

function check(run) {
  let source = read(`${run.module}.tla`);
  let cfg = read(`${run.module}.cfg`);
  if (run.constants) {
    const listed = invariants(cfg, run).map((invariant) => {
      if (/^\w+$/.test(invariant)) return invariant;
      source = define(source, 'Extra', invariant);
      return 'Extra';
    });
    cfg = configure(cfg, run.constants, listed);
  }
  return JSON.parse(check_spec_with_cfg(source, cfg, '{}', MAX_STATES, MAX_DEPTH, false, false));
}

/** What is wrong with an answer, or nothing. */
function complaint(run, answer) {
  if (run.breaks) {
    if (answer.error_type === 'InvariantViolation') return '';
    return answer.success ? `${run.breaks} holds, and must not` : answer.error_message;
  }
  if (!answer.success) return [answer.error_message, ...(answer.trace ?? [])].join('\n');
  if (answer.states_explored !== run.states) return `${answer.states_explored} states instead of ${run.states}`;
  return '';
}

const label = (run) => run.label ?? Object.entries(run.constants).map(([name, value]) => {
  const shown = String(value).startsWith('{') ? String(value).split(',').length : value;
  return `${name}=${shown}`;
}).join(' ');

initSync({ module: readFileSync(new URL('tla_checker_bg.wasm', import.meta.resolve('tla-checker'))) });

const wanted = process.argv.slice(2);
const runs = table.filter(({ module }) => wanted.length === 0 || wanted.some((part) => module.includes(part)));
if (runs.length === 0) throw new Error(`no module is called ${wanted.join(' or ')}`);

const wide = Math.max(...runs.map((run) => run.module.length));
const wider = Math.max(...runs.map((run) => label(run).length));
const line = (...cells) => console.log([
  cells[0].padEnd(wide), cells[1].padEnd(wider), String(cells[2]).padStart(7), String(cells[3]).padStart(8), cells[4].padStart(7), cells[5],
].join('  ').trimEnd());

line('module', 'constants', 'states', 'expected', 'seconds', 'verdict');
const failures = [];
for (const run of runs) {
  const start = performance.now();
  const answer = check(run);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const wrong = complaint(run, answer);
  const extra = run.also ?? run.instead ?? '';
  const found = run.breaks ? `${run.breaks} is false${run.why ? `: ${run.why}` : ''}` : `holds${extra && `: ${extra}`}`;
  line(run.module, label(run), answer.states_explored, run.breaks ? '-' : run.states, seconds, wrong ? 'WRONG' : found);
  if (wrong) failures.push(`${run.module}, ${label(run)}: ${wrong}`);
}
console.log(`${runs.length - failures.length} passed, ${failures.length} failed`);
if (failures.length > 0) {
  console.error(`\n${failures.join('\n')}`);
  process.exit(1);
}

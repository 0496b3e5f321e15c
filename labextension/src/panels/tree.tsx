/**
 * The lake as a virtualised treegrid: only the visible lines are in the document.
 *
 * Keys: arrows, Home, End, Page Up and Down move; Right, Left, Enter and Space expand and collapse; `a`, Ctrl+Enter and
 * Alt+Enter attach.
 */
import { TranslationBundle } from '@jupyterlab/translation';
import { Range, defaultRangeExtractor, useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';
import { AttachmentsModel } from '../model/attachments';
import { ILine, TreeModel, expandable } from '../model/tree';
import { IAttachment, IRow, Order, SortKey, attachable, didOf } from '../model/types';
import { useChanges } from './common';
import { Line } from './row';

/** Height of a line and of the header in pixels, as in the style sheet. */
const HEIGHT = 24;

/** Milliseconds that scrolling must rest before missing pages are asked for. */
const REST = 60;

/** What the tree needs. */
export interface ITreeProps {
  model: TreeModel;
  attachments: AttachmentsModel;
  trans: TranslationBundle;
  onAttach: (row: IRow) => void;
}

/** The treegrid. */
export function Tree(props: ITreeProps): JSX.Element {
  const { model, attachments, trans } = props;
  useChanges(model.changed, attachments.changed);
  const scroller = React.useRef<HTMLDivElement>(null);
  const prefix = React.useId();
  const active = model.active;

  const rangeExtractor = React.useCallback(
    // the active line stays in the document wherever the list is scrolled: aria-activedescendant names it
    (range: Range) => [...new Set([...defaultRangeExtractor(range), active])].sort((a, b) => a - b),
    [active]
  );
  const virtualizer = useVirtualizer({
    count: model.count,
    getScrollElement: () => scroller.current,
    estimateSize: () => HEIGHT,
    overscan: 8,
    scrollPaddingStart: HEIGHT,
    paddingStart: 0,
    rangeExtractor
  });

  const range = virtualizer.range;
  const [first, last] = [range?.startIndex ?? 0, range?.endIndex ?? 0];
  React.useEffect(() => {
    const timer = setTimeout(
      () => model.ensure(Math.max(0, first - 8), last + 8),
      virtualizer.isScrolling ? REST : 0
    );
    return () => clearTimeout(timer);
  });

  const move = (to: number) => {
    const index = Math.max(0, Math.min(model.count - 1, to));
    model.active = index;
    virtualizer.scrollToIndex(index, { align: 'auto' });
  };
  const page = () => Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / HEIGHT) - 2);
  const toggle = (line: ILine) => void model.toggle(line);
  const retry = (line: ILine) => void model.refresh(line.level);
  const onKeyDown = (event: React.KeyboardEvent) => {
    const command = keyCommand(event);
    // asked now, not at the last rendering: rows above may have come or gone since
    const now = model.active;
    const line = model.get(now);
    if (!command || !line || event.target !== event.currentTarget) {
      return;
    }
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab's own shortcuts see it
    run(command, {
      model,
      line,
      active: now,
      move,
      page,
      toggle,
      retry,
      attach: props.onAttach
    });
  };

  const byDid = new Map<string, IAttachment>(attachments.items.map(item => [item.did, item]));
  return (
    <div
      ref={scroller}
      className="jp-DMSP-grid"
      role="treegrid"
      aria-label={trans.__('Data Lake')}
      aria-rowcount={model.count + 1}
      aria-colcount={5}
      aria-activedescendant={model.count > 0 ? `${prefix}-${active}` : undefined}
      tabIndex={0}
      onKeyDown={onKeyDown}
    >
      <Header model={model} trans={trans} />
      <div role="rowgroup" className="jp-DMSP-rows" style={{ height: virtualizer.getTotalSize() }}>
        {virtualizer.getVirtualItems().map(item => {
          const line = model.get(item.index);
          return line ? (
            <Line
              key={item.index}
              id={`${prefix}-${item.index}`}
              line={line}
              index={item.index}
              top={item.start}
              active={item.index === active}
              attachment={line.row ? byDid.get(didOf(line.row)) : undefined}
              filtered={model.filter !== ''}
              trans={trans}
              onActivate={target => model.activate(target)}
              onToggle={toggle}
              onAttach={props.onAttach}
              onRetry={retry}
            />
          ) : null;
        })}
      </div>
    </div>
  );
}

type Command =
  'down' | 'up' | 'pageDown' | 'pageUp' | 'first' | 'last' | 'in' | 'out' | 'open' | 'attach';

const KEYS: { [key: string]: Command } = {
  ArrowDown: 'down',
  ArrowUp: 'up',
  PageDown: 'pageDown',
  PageUp: 'pageUp',
  Home: 'first',
  End: 'last',
  ArrowRight: 'in',
  ArrowLeft: 'out',
  Enter: 'open',
  ' ': 'open',
  a: 'attach'
};

/** What a key asks for, or null when it is not for the tree. */
export function keyCommand(event: {
  key: string;
  ctrlKey: boolean;
  altKey: boolean;
  metaKey: boolean;
}): Command | null {
  const modified = event.ctrlKey || event.altKey || event.metaKey;
  if (modified) {
    return event.key === 'Enter' ? 'attach' : null;
  }
  return KEYS[event.key] ?? null;
}

interface ITarget {
  model: TreeModel;
  line: ILine;
  active: number;
  move: (to: number) => void;
  page: () => number;
  toggle: (line: ILine) => void;
  retry: (line: ILine) => void;
  attach: (row: IRow) => void;
}

function run(command: Command, target: ITarget): void {
  const { model, line, active, move, page } = target;
  const canExpand = expandable(line.row);
  const actions: { [command in Command]: () => void } = {
    down: () => move(active + 1),
    up: () => move(active - 1),
    pageDown: () => move(active + page()),
    pageUp: () => move(active - page()),
    first: () => move(0),
    last: () => move(model.count - 1),
    in: () => (canExpand && !line.expanded ? target.toggle(line) : move(active + 1)),
    out: () => {
      const parent = model.parentOf(active);
      if (line.expanded) {
        target.toggle(line);
      } else if (parent >= 0) {
        move(parent);
      }
    },
    open: () => (line.notice === 'error' ? target.retry(line) : target.toggle(line)),
    attach: () => {
      if (line.row && attachable(line.row)) {
        target.attach(line.row);
      }
    }
  };
  actions[command]();
}

function Header(props: { model: TreeModel; trans: TranslationBundle }): JSX.Element {
  const { model, trans } = props;
  const sort = (key: SortKey) => {
    const same = model.sortKey === key;
    // a first look at sizes and counts is for the largest
    const order: Order = same ? (model.order === 'asc' ? 'desc' : 'asc') : firstOrder(key);
    void model.sort(key, order);
  };
  const columns: [SortKey | null, string, string, string][] = [
    ['name', 'name', trans.__('Name'), trans.__('Sort by name')],
    ['bytes', 'size', trans.__('Size'), trans.__('Sort by size')],
    ['length', 'files', trans.__('Files'), trans.__('Sort by files')],
    [null, 'place', trans.__('Where'), ''],
    [null, 'act', trans.__('Actions'), '']
  ];
  return (
    <div role="rowgroup" className="jp-DMSP-head">
      <div role="row" aria-rowindex={1} className="jp-DMSP-row">
        {columns.map(([key, name, label, action]) => {
          const sorted = key !== null && model.sortKey === key;
          const order = model.order === 'asc' ? 'ascending' : 'descending';
          return (
            <div
              key={name}
              role="columnheader"
              className={`jp-DMSP-${name}`}
              aria-sort={sorted ? order : key ? 'none' : undefined}
            >
              {key ? (
                <button
                  type="button"
                  tabIndex={-1}
                  aria-label={action}
                  title={action}
                  onClick={() => sort(key)}
                >
                  {label}
                  {sorted && <span aria-hidden="true">{model.order === 'asc' ? ' ↑' : ' ↓'}</span>}
                </button>
              ) : (
                <span className={name === 'act' ? 'jp-DMSP-hidden' : ''}>{label}</span>
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}

/** The direction that a key begins with: names from A, the rest from the most. */
export function firstOrder(key: SortKey): Order {
  return key === 'name' ? 'asc' : 'desc';
}

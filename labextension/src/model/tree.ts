/**
 * The lake as a tree that is loaded lazily and seen as a flat list.
 */
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';
import { IListing, asFault } from './api';
import { Level, Notice, PAGE } from './level';
import { IRow, Order, SortKey, didOf } from './types';

/** Milliseconds between two looks at a listing that is still growing. */
const GROWING = 1000;

/** Milliseconds in which hints about a listing are answered by one look. */
const HINTED = 300;

/** At most this many scopes are opened by a filter. */
const AUTO_OPEN = 50;

/** One line of the flat list: a row, or a notice in place of rows. */
export interface ILine {
  level: Level;
  /** Place in the level, -1 for a notice. */
  at: number;
  /** The row, null while its page is on its way and for notices. */
  row: IRow | null;
  notice: Notice | null;
  expanded: boolean;
}

/** Whether a row has something below it. */
export function expandable(row: IRow | null): boolean {
  return !!row && row.kind !== 'file';
}

/**
 * The tree. Looking up a line costs O(expanded nodes above it), whatever the number of rows.
 *
 * The active line is held by level and place, so that it stays on its row while other levels grow.
 */
export class TreeModel implements IDisposable {
  readonly root = new Level('', 0, null);

  private _changed = new Signal<this, void>(this);
  private _sort: SortKey = 'name';
  private _order: Order = 'asc';
  private _pattern = '';
  private _scope = '';
  private _byFilter = new Set<string>();
  private _active: { level: Level; at: number } = { level: this.root, at: 0 };
  private _timers = new Map<Level, { timer: ReturnType<typeof setTimeout>; due: number }>();
  private _disposed = false;

  constructor(private _api: IListing) {}

  /** Emitted when lines have changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Number of lines. */
  get count(): number {
    return this.root.lines;
  }

  get sortKey(): SortKey {
    return this._sort;
  }

  get order(): Order {
    return this._order;
  }

  /** The filter as it was typed. */
  get filter(): string {
    return this._scope ? `${this._scope}:${this._pattern}` : this._pattern;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    this._timers.forEach(({ timer }) => clearTimeout(timer));
    this._timers.clear();
    Signal.clearData(this);
  }

  /** The line at an index of the flat list, null beyond its end. Loads nothing: see `ensure`. */
  get(index: number): ILine | null {
    let level = this.root;
    let rest = index;
    for (;;) {
      const notice = level.notice;
      if (notice && rest === 0) {
        return { level, at: -1, row: null, notice, expanded: false };
      }
      rest -= notice ? 1 : 0;
      let into: Level | null = null;
      for (const child of level.open) {
        if (rest <= child.at) {
          break;
        }
        const lines = child.level.lines;
        if (rest <= child.at + lines) {
          into = child.level;
          rest -= child.at + 1;
          break;
        }
        rest -= lines;
      }
      if (into) {
        level = into;
        continue;
      }
      if (rest < 0 || rest >= level.total) {
        return null;
      }
      const row = level.row(rest);
      const expanded = !!row && level.child(didOf(row)) !== null;
      return { level, at: rest, row, notice: null, expanded };
    }
  }

  /** The index of a place in the flat list (-1 stands for the notice), -1 when it is not visible. */
  indexOf(level: Level, at: number): number {
    let start = 0;
    if (level.above) {
      const place = level.above.placeOf(level);
      const parent = place < 0 ? -1 : this.indexOf(level.above, place);
      if (parent < 0) {
        return -1;
      }
      start = parent + 1;
    }
    if (at < 0) {
      return level.notice ? start : -1;
    }
    let index = start + (level.notice ? 1 : 0) + at;
    for (const child of level.open) {
      if (child.at < at) {
        index += child.level.lines;
      }
    }
    return at < level.total ? index : -1;
  }

  /** The index of the active line; the nearest line that is visible when its row has gone. */
  get active(): number {
    let { level, at } = this._active;
    for (;;) {
      const index = this.indexOf(level, at);
      if (index >= 0) {
        return index;
      }
      if (at < 0 && level.total > 0) {
        at = 0; // the notice has gone: the first row is in its place
        continue;
      }
      if (!level.above) {
        return 0;
      }
      at = Math.max(0, level.above.placeOf(level));
      level = level.above;
    }
  }

  set active(index: number) {
    const line = this.get(Math.max(0, Math.min(this.count - 1, index)));
    if (line) {
      this.activate(line);
    }
  }

  /** Make a line the active one. */
  activate(line: ILine): void {
    this._active = { level: line.level, at: line.at };
    this._changed.emit();
  }

  /** The row of the active line. */
  get activeRow(): IRow | null {
    return this.get(this.active)?.row ?? null;
  }

  /** The index of the row that a line lies below, -1 for the scopes. */
  parentOf(index: number): number {
    const level = this.get(index)?.level;
    return level?.above ? this.indexOf(level.above, level.above.placeOf(level)) : -1;
  }

  /** Ask for the first page of the scopes. */
  async start(): Promise<void> {
    await this._load(this.root, 0);
  }

  /** Ask for the pages that a range of lines needs. */
  ensure(first: number, last: number): void {
    const wanted = new Map<Level, Set<number>>();
    for (let index = first; index <= last; index++) {
      const line = this.get(index);
      if (line && line.at >= 0) {
        const page = Math.floor(line.at / PAGE);
        if (line.level.wants(page)) {
          wanted.set(line.level, (wanted.get(line.level) ?? new Set()).add(page));
        }
      }
    }
    wanted.forEach((pages, level) => pages.forEach(page => void this._load(level, page)));
  }

  /** Expand or collapse a line. */
  async toggle(line: ILine): Promise<void> {
    if (!line.row || !expandable(line.row)) {
      return;
    }
    const did = didOf(line.row);
    if (line.level.child(did)) {
      this._byFilter.delete(did);
      line.level.collapse(did);
      this._changed.emit();
      return;
    }
    await this._expand(line.level, line.at, did);
  }

  /** Sort every level. */
  async sort(key: SortKey, order: Order): Promise<void> {
    if (key === this._sort && order === this._order) {
      return;
    }
    this._sort = key;
    this._order = order;
    await this._again(this.root, () => true);
  }

  /**
   * Show only what fits a text: `name`, `na*me` or `scope:name`.
   *
   * The text is matched with the datasets and containers of the scopes; what lies inside them stays reachable.
   */
  async setFilter(text: string): Promise<void> {
    const [scope, pattern] = text.includes(':')
      ? [text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1)]
      : ['', text];
    if (scope.trim() === this._scope && pattern.trim() === this._pattern) {
      return;
    }
    this._scope = scope.trim();
    this._pattern = pattern.trim();
    this._openByFilter();
    await this._again(this.root, level => level.depth === 1);
  }

  /** Read a level from the lake again (default: the level of the active line, from the scopes down). */
  async refresh(level: Level = this.root): Promise<void> {
    await this._again(level, () => true, true);
  }

  /** The loaded level of a parent, when it is expanded. */
  find(parent: string): Level | null {
    for (const level of this._levels(this.root)) {
      if (level.parent === parent) {
        return level;
      }
    }
    return null;
  }

  /** A hint that a listing has grown, or that more is known of its rows: look at it soon. */
  hint(parent: string): void {
    const level = this.find(parent);
    if (level) {
      this._look(level, HINTED);
    }
  }

  private async _expand(above: Level, at: number, did: string): Promise<void> {
    const level = new Level(did, above.depth + 1, above);
    above.expand(at, level);
    this._changed.emit();
    await this._load(level, 0);
  }

  private *_levels(from: Level): Iterable<Level> {
    yield from;
    for (const child of from.children()) {
      yield* this._levels(child);
    }
  }

  /** Ask the shown pages of levels again. */
  private async _again(
    from: Level,
    which: (level: Level) => boolean,
    refresh = false
  ): Promise<void> {
    const levels = [...this._levels(from)].filter(which);
    levels.forEach(level => level.invalidate());
    await Promise.all(levels.map(level => this._load(level, 0, refresh)));
  }

  private _load(level: Level, page: number, refresh = false): Promise<void> {
    const running = level.loading.get(page);
    if (running) {
      return running;
    }
    const job = this._fetch(level, page, refresh);
    level.loading.set(page, job);
    return job;
  }

  private async _fetch(level: Level, page: number, refresh: boolean): Promise<void> {
    const generation = level.generation;
    const fresh = () => level.generation === generation && !this._disposed;
    try {
      const answer = await this._api.children({
        parent: level.parent,
        offset: page * PAGE,
        limit: PAGE,
        sort: this._sort,
        order: this._order,
        pattern: level.depth === 1 ? glob(this._pattern) : '',
        refresh
      });
      if (fresh()) {
        level.apply(page, answer);
        if (level === this.root) {
          this._openByFilter();
        }
      }
    } catch (error) {
      if (fresh()) {
        level.error = asFault(error);
      }
    }
    if (fresh()) {
      level.loading.delete(page);
      if (!level.complete && !level.error) {
        this._look(level, GROWING);
      }
      this._changed.emit();
    }
  }

  /** Look at a level again: its first page for the total, the others when they are seen. */
  private _look(level: Level, delay: number): void {
    const due = Date.now() + delay;
    const before = this._timers.get(level);
    if (before && before.due <= due) {
      return; // many hints, one look
    }
    clearTimeout(before?.timer);
    const timer = setTimeout(() => {
      this._timers.delete(level);
      if (this.find(level.parent) === level) {
        level.outdate();
        void this._load(level, 0);
      }
    }, delay);
    this._timers.set(level, { timer, due });
  }

  /** With a filter the fitting scopes are open; without one those that only the filter opened close again. */
  private _openByFilter(): void {
    const on = !!(this._scope || this._pattern);
    const rows = Math.min(this.root.total, AUTO_OPEN);
    for (let at = 0; at < rows; at++) {
      const row = this.root.row(at);
      if (!row) {
        continue;
      }
      const fits = on && row.scope.toLowerCase().includes(this._scope.toLowerCase());
      if (fits && !this.root.child(row.scope)) {
        this._byFilter.add(row.scope);
        void this._expand(this.root, at, row.scope);
      } else if (!fits && this._byFilter.delete(row.scope)) {
        this.root.collapse(row.scope);
      }
    }
    this._changed.emit();
  }
}

/** The pattern for the server: a text without wildcards is looked for anywhere in the name. */
export function glob(text: string): string {
  if (!text) {
    return '';
  }
  return /[*?]/.test(text) ? text : `*${text}*`;
}

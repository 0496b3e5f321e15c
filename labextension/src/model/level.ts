/**
 * One expanded node of the tree: its size, its pages as they arrive, its expanded children.
 */
import { IFault, IPage, IRow, didOf } from './types';

/** Rows asked for in one request. */
export const PAGE = 200;

/** A line of text in place of rows. */
export type Notice = 'loading' | 'error' | 'empty' | 'listing' | 'listed';

/** An expanded child and the place of its row. */
interface IChild {
  at: number;
  level: Level;
}

/**
 * The rows below one parent.
 *
 * Pages are kept when they go stale (another sort, another snapshot) and shown until the new ones arrive: the view
 * does not flicker. Expanded children are held by DID, and their places follow the pages.
 */
export class Level {
  /** Number of rows, -1 before the first answer. */
  total = -1;
  /** Whether the server knows all rows. */
  complete = true;
  /** The version of the listing that `total` belongs to. */
  snapshot = '';
  /** What went wrong at the last request. */
  error: IFault | null = null;
  /** Incremented when answers on their way are for another question. */
  generation = 0;
  /** Pages on their way. */
  readonly loading = new Map<number, Promise<void>>();

  /** Whether the listing was seen growing: its line stays, so that no row moves when it is complete. */
  private _grew = false;
  private _pages = new Map<number, IRow[]>();
  private _stale = new Set<number>();
  private _children = new Map<string, IChild>();
  private _open: IChild[] = [];

  /**
   * @param parent - DID or scope whose content this is, "" for the scopes
   * @param depth - 0 for the scopes
   * @param above - the level that holds the parent's row, null for the scopes
   */
  constructor(
    readonly parent: string,
    readonly depth: number,
    readonly above: Level | null
  ) {}

  /** The line shown before the rows, or null. */
  get notice(): Notice | null {
    if (this.error) {
      return 'error';
    }
    if (this.total < 0) {
      return 'loading';
    }
    if (!this.complete) {
      return 'listing';
    }
    if (this.total === 0) {
      return 'empty';
    }
    return this._grew ? 'listed' : null;
  }

  /** Lines that this level takes in the flat list, expanded children included. */
  get lines(): number {
    const own = (this.notice ? 1 : 0) + Math.max(0, this.total);
    return this._open.reduce((sum, child) => sum + child.level.lines, own);
  }

  /** Expanded children whose place is known, in order. */
  get open(): readonly IChild[] {
    return this._open;
  }

  /** The pages that were loaded at some time. */
  get pages(): number[] {
    return [...this._pages.keys()];
  }

  /** The row at a place, null when its page is not here. */
  row(at: number): IRow | null {
    return this._pages.get(Math.floor(at / PAGE))?.[at % PAGE] ?? null;
  }

  /** Whether a page has to be asked for. */
  wants(page: number): boolean {
    return !this.loading.has(page) && (!this._pages.has(page) || this._stale.has(page));
  }

  /** The expanded child of a row, or null. */
  child(did: string): Level | null {
    return this._children.get(did)?.level ?? null;
  }

  /** The place of an expanded child's row, -1 when it is not known now. */
  placeOf(level: Level): number {
    return this._open.find(child => child.level === level)?.at ?? -1;
  }

  /** The expanded children, also those whose place is not known now. */
  *children(): Iterable<Level> {
    for (const child of this._children.values()) {
      yield child.level;
    }
  }

  /** Expand the row at a place. */
  expand(at: number, level: Level): void {
    this._children.set(level.parent, { at, level });
    this._order();
  }

  /** Collapse a row. */
  collapse(did: string): void {
    const child = this._children.get(did);
    if (child) {
      child.level.generation += 1;
      this._children.delete(did);
      this._order();
    }
  }

  /** Ask all pages again; answers on their way are dropped. */
  invalidate(): void {
    this.generation += 1;
    this.loading.clear();
    this.outdate();
  }

  /** Rows may have moved or more may be known of them: pages are asked for again when they are seen. */
  outdate(): void {
    this._stale = new Set(this._pages.keys());
  }

  /** Take in a page. */
  apply(page: number, answer: IPage): void {
    if (answer.snapshot !== this.snapshot || answer.total !== this.total) {
      this.outdate(); // rows have moved
      this.snapshot = answer.snapshot;
    }
    this.total = answer.total;
    this.complete = answer.complete;
    this._grew ||= !answer.complete;
    this.error = answer.error;
    this._stale.delete(page);
    this._pages.set(page, answer.rows);
    for (const known of this.pages) {
      if (known * PAGE >= Math.max(1, this.total)) {
        this._pages.delete(known);
        this._stale.delete(known);
      }
    }
    this._settle(page, answer.rows);
  }

  /** Expanded children follow their rows; one whose row has gone from its page waits unseen until it is found. */
  private _settle(page: number, rows: IRow[]): void {
    if (this._children.size === 0) {
      return;
    }
    for (const child of this._children.values()) {
      if (child.at >= this.total || Math.floor(child.at / PAGE) === page) {
        child.at = -1;
      }
    }
    rows.forEach((row, index) => {
      const child = this._children.get(didOf(row));
      if (child) {
        child.at = page * PAGE + index;
      }
    });
    this._order();
  }

  private _order(): void {
    this._open = [...this._children.values()]
      .filter(child => child.at >= 0)
      .sort((a, b) => a.at - b.at);
  }
}

/**
 * One line of the tree.
 */
import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { Glyph, availabilityShape, kindShape } from '../icons';
import { formatBytes, formatCount, formatTime, percent } from '../model/format';
import { ILine, expandable } from '../model/tree';
import { IAttachment, IRow, attachable, didOf, moving } from '../model/types';
import { Fault, availabilityText, kindText } from './common';

/** Pixels by which a level is indented. */
const INDENT = 14;

/** What a line needs. */
export interface ILineProps {
  line: ILine;
  index: number;
  id: string;
  top: number;
  active: boolean;
  attachment: IAttachment | undefined;
  /** Whether a filter leaves rows out. */
  filtered: boolean;
  trans: TranslationBundle;
  onActivate: (line: ILine) => void;
  onToggle: (line: ILine) => void;
  onAttach: (row: IRow) => void;
  onRetry: (line: ILine) => void;
}

/** A row, or a notice in place of rows. DIDs are text, never markup. */
export function Line(props: ILineProps): JSX.Element {
  return props.line.notice ? <NoticeLine {...props} /> : <RowLine {...props} />;
}

function NoticeLine(props: ILineProps): JSX.Element {
  const { line, trans } = props;
  const { level, notice } = line;
  let content: JSX.Element;
  if (notice === 'error' && level.error) {
    content = <Fault fault={level.error} trans={trans} onRetry={() => props.onRetry(line)} />;
  } else if (notice === 'empty') {
    content = (
      <span className="jp-DMSP-quiet">{emptyText(level.depth, props.filtered, trans)}</span>
    );
  } else if (notice === 'listed') {
    content = (
      <span className="jp-DMSP-quiet">
        {trans._n('%2 entry', '%2 entries', level.total, formatCount(level.total))}
      </span>
    );
  } else {
    content = (
      <span className="jp-DMSP-quiet">
        <Glyph shape="moving" className="jp-mod-busy" />
        {notice === 'loading'
          ? trans.__('Loading…')
          : trans.__('Listing… %1 so far', formatCount(level.total))}
      </span>
    );
  }
  return (
    <div
      id={props.id}
      role="row"
      className="jp-DMSP-row jp-mod-notice"
      data-notice={notice}
      aria-rowindex={props.index + 2}
      aria-level={level.depth + 1}
      aria-selected={props.active}
      style={{ transform: `translateY(${props.top}px)` }}
      onClick={() => props.onActivate(line)}
    >
      <div
        role="gridcell"
        aria-colspan={5}
        style={{ paddingLeft: 8 + INDENT * level.depth }}
        className="jp-DMSP-noticeCell"
      >
        {content}
      </div>
    </div>
  );
}

function emptyText(depth: number, filtered: boolean, trans: TranslationBundle): string {
  if (depth === 0) {
    return trans.__('You can see no scope of this lake yet.');
  }
  return depth === 1 && filtered ? trans.__('Nothing here fits.') : trans.__('Empty.');
}

function RowLine(props: ILineProps): JSX.Element {
  const { line, index, trans, attachment } = props;
  const { row, level } = line;
  const canAttach = attachable(row);
  return (
    <div
      id={props.id}
      role="row"
      className={`jp-DMSP-row${row ? '' : ' jp-mod-waiting'}`}
      data-did={row ? didOf(row) : undefined}
      data-kind={row?.kind}
      aria-label={row ? spoken(row, attachment, trans) : trans.__('Loading…')}
      aria-rowindex={index + 2}
      aria-level={level.depth + 1}
      aria-posinset={line.at + 1}
      aria-setsize={level.complete ? level.total : -1}
      aria-expanded={row && expandable(row) ? line.expanded : undefined}
      aria-selected={props.active}
      style={{ transform: `translateY(${props.top}px)` }}
      onMouseDown={() => props.onActivate(line)}
      onClick={() => props.onToggle(line)}
    >
      <div
        role="gridcell"
        className="jp-DMSP-name"
        style={{ paddingLeft: 4 + INDENT * level.depth }}
        title={row ? tooltip(row, trans) : undefined}
      >
        {row && expandable(row) ? (
          <Glyph shape="caret" className={line.expanded ? 'jp-mod-open' : ''} />
        ) : (
          <span className="jp-DMSP-glyph" />
        )}
        {row && <Glyph shape={kindShape(row.kind)} className={`jp-mod-${row.kind}`} />}
        <span className="jp-DMSP-label">{row ? row.name || row.scope : '…'}</span>
      </div>
      <div role="gridcell" className="jp-DMSP-size">
        {row && row.kind !== 'scope' ? formatBytes(row.bytes) : ''}
      </div>
      <div role="gridcell" className="jp-DMSP-files">
        {row && row.kind !== 'file' && row.length !== null ? formatCount(row.length) : ''}
      </div>
      <div role="gridcell" className="jp-DMSP-place">
        {row && canAttach && <Place row={row} attachment={attachment} trans={trans} />}
      </div>
      <div role="gridcell" className="jp-DMSP-act">
        {row && canAttach && (
          <button
            type="button"
            tabIndex={-1}
            className="jp-DMSP-attachButton"
            aria-label={trans.__('Attach %1', row.name)}
            title={trans.__('Attach %1', row.name)}
            onClick={event => {
              event.stopPropagation();
              props.onAttach(row);
            }}
          >
            {trans.__('Attach')}
          </button>
        )}
      </div>
    </div>
  );
}

/** Where the data is, in a glyph and a word; on its way, how much of it has come. */
function Place(props: {
  row: IRow;
  attachment: IAttachment | undefined;
  trans: TranslationBundle;
}): JSX.Element {
  const { row, attachment, trans } = props;
  if (attachment && moving(attachment)) {
    const text = trans.__('%1 %', percent(attachment));
    return <Badge shape="moving" mode="moving" text={text} title={trans.__('On its way')} />;
  }
  const place = attachment?.state === 'ready' ? 'all' : row.availability;
  const text = availabilityText(place, trans);
  return <Badge shape={availabilityShape(place)} mode={place} text={text} title={text} />;
}

function Badge(props: { shape: string; mode: string; text: string; title: string }): JSX.Element {
  return (
    <span className={`jp-DMSP-badge jp-mod-${props.mode}`} title={props.title}>
      <Glyph shape={props.shape} />
      <span className="jp-DMSP-badgeText">{props.text}</span>
    </span>
  );
}

function spoken(row: IRow, attachment: IAttachment | undefined, trans: TranslationBundle): string {
  if (row.kind === 'scope') {
    return trans.__('%1, scope', row.scope);
  }
  const parts = [row.name, kindText(row.kind, trans), formatBytes(row.bytes)];
  if (row.kind !== 'file' && row.length !== null) {
    parts.push(trans._n('%1 file', '%1 files', row.length));
  }
  const place = attachment?.state === 'ready' ? 'all' : row.availability;
  parts.push(
    attachment && moving(attachment) ? trans.__('on its way') : availabilityText(place, trans)
  );
  return parts.join(', ');
}

function tooltip(row: IRow, trans: TranslationBundle): string {
  if (row.kind === 'scope') {
    return row.scope;
  }
  const lines = [`${row.scope}:${row.name}`, kindText(row.kind, trans)];
  if (row.created !== null) {
    lines.push(trans.__('Created %1', formatTime(row.created)));
  }
  return lines.join('\n');
}

/**
 * The lower part of the sidebar: what is attached, how far it is, and what can be done with it.
 */
import { ReactWidget } from '@jupyterlab/ui-components';
import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { Glyph, stateShape } from '../icons';
import { AttachmentsModel } from '../model/attachments';
import {
  formatBytes,
  formatCount,
  formatSeconds,
  formatTime,
  parseTime,
  percent
} from '../model/format';
import { IAttachment, moving } from '../model/types';
import { IUse, Notebooks } from '../notebook/notebooks';
import { Fault, stateText, useChanges } from './common';
import { Failures, lacksFiles } from './failures';

/** What can be done with an attachment. */
export interface IAttachedActions {
  insert: (attachment: IAttachment) => void;
  release: (attachment: IAttachment) => void;
  retry: (attachment: IAttachment) => void;
  extend: (attachment: IAttachment) => void;
}

/** What the panel needs. */
export interface IAttachedProps {
  attachments: AttachmentsModel;
  notebooks: Notebooks;
  actions: IAttachedActions;
  trans: TranslationBundle;
}

function Attached(props: IAttachedProps): JSX.Element {
  const { attachments, notebooks, trans } = props;
  useChanges(attachments.changed, notebooks.changed);
  const items = attachments.items;
  const orphans = notebooks.orphans();
  return (
    <>
      {attachments.error && (
        <Fault
          fault={attachments.error}
          trans={trans}
          onRetry={() => void attachments.refresh().catch(() => undefined)}
        />
      )}
      {attachments.loaded && items.length === 0 && orphans.length === 0 && (
        <p className="jp-DMSP-empty">
          {trans.__('Nothing is attached. Choose a dataset above and press Attach.')}
        </p>
      )}
      <ul className="jp-DMSP-list">
        {items.map(item => (
          <Item key={item.id} item={item} uses={notebooks.uses(item.id)} {...props} />
        ))}
      </ul>
      {orphans.map(use => (
        <Fault
          key={`${use.link.path}/${use.variable.name}`}
          trans={trans}
          fault={{ code: 'restore', message: orphanText(use, trans), action: 'none' }}
        />
      ))}
    </>
  );
}

function orphanText(use: IUse, trans: TranslationBundle): string {
  const { link, variable } = use;
  return trans.__('%1 in %2: %3', variable.name, link.title, variable.error ?? '');
}

function Item(props: IAttachedProps & { item: IAttachment; uses: IUse[] }): JSX.Element {
  const { item, uses, trans } = props;
  return (
    <li className="jp-DMSP-item" data-did={item.did} data-state={item.state}>
      <div className="jp-DMSP-itemHead">
        <span className="jp-DMSP-label" title={item.did}>
          {item.did}
        </span>
        <span className={`jp-DMSP-badge jp-mod-${item.state}`}>
          <Glyph shape={stateShape(item.state)} />
          <span>{stateText(item.state, trans)}</span>
        </span>
      </div>
      {(moving(item) || item.state === 'stuck') && <Progress item={item} trans={trans} />}
      <div className="jp-DMSP-numbers">{numbers(item, trans)}</div>
      {uses.map(use => (
        <Use key={`${use.link.path}/${use.variable.name}`} use={use} item={item} trans={trans} />
      ))}
      {item.error && <Fault fault={{ ...item.error, action: faultAction(item) }} trans={trans} />}
      {lacksFiles(item) && (
        <Failures item={item} ask={id => props.attachments.failures(id)} trans={trans} />
      )}
      <Actions {...props} />
    </li>
  );
}

/** Retrying has its own button below; logging in has none. */
function faultAction(item: IAttachment): 'login' | 'none' {
  return item.error?.action === 'login' ? 'login' : 'none';
}

function Progress(props: { item: IAttachment; trans: TranslationBundle }): JSX.Element {
  const { item, trans } = props;
  const value = percent(item);
  return (
    <div
      role="progressbar"
      className={`jp-DMSP-bar jp-mod-${item.state}`}
      aria-label={trans.__('Progress of %1', item.did)}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={value}
      aria-valuetext={trans.__('%1 %, %2', value, numbers(item, trans))}
    >
      <div style={{ width: `${value}%` }} />
    </div>
  );
}

/** Files and bytes, arrived of all, the rate and the time left. */
export function numbers(item: IAttachment, trans: TranslationBundle): string {
  const parts: string[] = [];
  const partial = item.state !== 'ready';
  if (item.files_total) {
    const total = formatCount(item.files_total);
    parts.push(
      partial
        ? trans.__('%1 of %2 files', formatCount(item.files_ready), total)
        : trans._n('%2 file', '%2 files', item.files_total, total)
    );
  }
  if (item.bytes_total) {
    const total = formatBytes(item.bytes_total);
    parts.push(partial ? trans.__('%1 of %2', formatBytes(item.bytes_ready), total) : total);
  }
  if (moving(item) && item.rate_bytes_per_s) {
    parts.push(trans.__('%1/s', formatBytes(item.rate_bytes_per_s)));
  }
  if (moving(item) && item.eta_s !== null && item.eta_s > 0) {
    parts.push(trans.__('%1 left', formatSeconds(item.eta_s)));
  }
  if (!partial && item.expires_at !== null) {
    parts.push(keptText(item, trans));
  }
  // a line breaks between the parts, not inside them
  return parts.map(part => part.replace(/ /g, '\u00a0')).join(' · ');
}

function keptText(item: IAttachment, trans: TranslationBundle): string {
  const date = parseTime(item.expires_at);
  const left = date ? (date.getTime() - Date.now()) / 1000 : 0;
  return date && left < 172800
    ? trans.__('kept for %1', formatSeconds(left))
    : trans.__('kept until %1', formatTime(item.expires_at));
}

function Use(props: { use: IUse; item: IAttachment; trans: TranslationBundle }): JSX.Element {
  const { use, item, trans } = props;
  const { link, variable } = use;
  const name = <code>{variable.name}</code>;
  let text: string;
  switch (variable.state) {
    case 'set':
      text =
        item.state === 'ready'
          ? trans.__('is ready in %1', link.title)
          : trans.__('is set in %1, its files are on their way', link.title);
      break;
    case 'setting':
      text = link.busy
        ? trans.__('waits for the kernel of %1', link.title)
        : trans.__('is being set in %1', link.title);
      break;
    case 'failed':
      text = trans.__('is not set in %1: %2', link.title, variable.error ?? '');
      break;
    default:
      text =
        item.state === 'ready'
          ? trans.__('will be set when a kernel of %1 runs', link.title)
          : trans.__('will be set in %1', link.title);
  }
  return (
    <div className={`jp-DMSP-use jp-mod-${variable.state}`} data-variable={variable.name}>
      {name} {text}
    </div>
  );
}

function Actions(props: IAttachedProps & { item: IAttachment; uses: IUse[] }): JSX.Element {
  const { item, uses, actions, notebooks, trans } = props;
  const current = notebooks.current;
  const here = uses.find(use => use.link === current)?.variable.name ?? item.variable ?? item.did;
  const button = (label: string, name: string, run: (item: IAttachment) => void, title: string) => (
    <button
      type="button"
      className="jp-DMSP-button"
      aria-label={name}
      title={title}
      onClick={() => run(item)}
    >
      {label}
    </button>
  );
  return (
    <div className="jp-DMSP-actions">
      {item.state === 'ready' &&
        current &&
        button(
          trans.__('Insert'),
          trans.__('Insert %1', here),
          actions.insert,
          trans.__('Set %1 in %2 and insert a cell that uses it', here, current.title)
        )}
      {(['stuck', 'failed'].includes(item.state) || item.error?.action === 'retry') &&
        button(
          trans.__('Retry'),
          trans.__('Retry %1', item.did),
          actions.retry,
          trans.__('Ask the lake to try again now')
        )}
      {item.state === 'ready' &&
        item.expires_at !== null &&
        button(
          trans.__('Extend'),
          trans.__('Extend %1', item.did),
          actions.extend,
          trans.__('Keep it on scratch for longer')
        )}
      {moving(item)
        ? button(
            trans.__('Cancel'),
            trans.__('Cancel %1', item.did),
            actions.release,
            trans.__('Stop bringing it to scratch')
          )
        : button(
            trans.__('Release'),
            trans.__('Release %1', item.did),
            actions.release,
            trans.__('Give its space on scratch back')
          )}
    </div>
  );
}

/** The widget around it. */
export function createAttached(props: IAttachedProps): ReactWidget {
  const widget = ReactWidget.create(<Attached {...props} />);
  widget.addClass('jp-DMSP-attached');
  return widget;
}

/**
 * The upper part of the sidebar: filter, order, and the tree.
 */
import { ReactWidget } from '@jupyterlab/ui-components';
import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { AttachmentsModel } from '../model/attachments';
import { StatusModel } from '../model/status';
import { TreeModel } from '../model/tree';
import { IRow, SortKey } from '../model/types';
import { Fault, useChanges } from './common';
import { Tree, firstOrder } from './tree';

/** Milliseconds after the last key before the filter is applied. */
const PAUSE = 250;

/** What the panel needs. */
export interface IBrowseProps {
  tree: TreeModel;
  attachments: AttachmentsModel;
  status: StatusModel;
  trans: TranslationBundle;
  onAttach: (row: IRow) => void;
  onRefresh: () => void;
}

function Browse(props: IBrowseProps): JSX.Element {
  const { tree, status, trans } = props;
  useChanges(status.changed, tree.changed);
  const [text, setText] = React.useState('');
  const typed = React.useRef(false);
  React.useEffect(() => {
    if (!typed.current) {
      return undefined;
    }
    const timer = setTimeout(() => void tree.setFilter(text), PAUSE);
    return () => clearTimeout(timer);
  }, [text]);
  const fault = status.fault;
  // an unreachable server is told by the tree already
  const banner = fault && !tree.root.error ? fault : null;
  return (
    <>
      <div className="jp-DMSP-filter">
        <input
          type="search"
          className="jp-DMSP-input"
          aria-label={trans.__('Filter by name')}
          title={trans.__('Part of a name, na*me with a wildcard, or scope:name')}
          placeholder={trans.__('Filter by name')}
          spellCheck={false}
          value={text}
          onChange={event => {
            typed.current = true;
            setText(event.target.value);
          }}
          onKeyDown={event => {
            if (event.key === 'Escape' && text) {
              event.stopPropagation();
              typed.current = true;
              setText('');
            }
          }}
        />
        <OrderSelect tree={tree} trans={trans} />
      </div>
      {banner && <Fault fault={banner} trans={trans} onRetry={props.onRefresh} />}
      <Tree model={tree} attachments={props.attachments} trans={trans} onAttach={props.onAttach} />
    </>
  );
}

function OrderSelect(props: { tree: TreeModel; trans: TranslationBundle }): JSX.Element {
  const { tree, trans } = props;
  const options: [SortKey, string][] = [
    ['name', trans.__('Name')],
    ['bytes', trans.__('Size')],
    ['length', trans.__('Files')],
    ['created', trans.__('Created')]
  ];
  return (
    <select
      className="jp-DMSP-select"
      aria-label={trans.__('Sort by')}
      title={trans.__('Sort by')}
      value={tree.sortKey}
      onChange={event => {
        const key = event.target.value as SortKey;
        void tree.sort(key, firstOrder(key));
      }}
    >
      {options.map(([key, label]) => (
        <option key={key} value={key}>
          {label}
        </option>
      ))}
    </select>
  );
}

/** The widget around it. */
export function createBrowse(props: IBrowseProps): ReactWidget {
  const widget = ReactWidget.create(<Browse {...props} />);
  widget.addClass('jp-DMSP-browse');
  return widget;
}

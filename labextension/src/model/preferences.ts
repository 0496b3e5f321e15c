/**
 * The user's settings.
 */
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ISignal, Signal } from '@lumino/signaling';
import { Order, SortKey } from './types';

/** The settings with their defaults, as in `schema/plugin.json`. */
export class Preferences {
  sort: SortKey = 'name';
  order: Order = 'asc';
  showSizes = true;
  showFiles = true;
  /** Milliseconds between two looks at the attachments when nothing moves. */
  pollInterval = 15000;
  /** Whether a notebook's datasets are attached again when it is opened. */
  restore = true;
  notifications = true;
  private _changed = new Signal<this, void>(this);

  /** Emitted when the settings have been read or changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Read the settings and follow them. Without a registry, or when it fails, the defaults count. */
  async load(registry: ISettingRegistry | null, id: string): Promise<void> {
    try {
      const settings = await registry?.load(id);
      settings?.changed.connect(changed => this._read(changed));
      if (settings) {
        this._read(settings);
      }
    } catch (error) {
      console.warn('The settings of the Data Lake cannot be read; its defaults are used.', error);
    }
  }

  private _read(settings: ISettingRegistry.ISettings): void {
    const value = settings.composite;
    this.sort = value.sort as SortKey;
    this.order = value.order as Order;
    this.showSizes = value.showSizes as boolean;
    this.showFiles = value.showFiles as boolean;
    this.pollInterval = (value.pollInterval as number) * 1000;
    this.restore = value.restore as boolean;
    this.notifications = value.notifications as boolean;
    this._changed.emit();
  }
}

// What jsdom lacks and JupyterLab's modules touch when they are imported.
const { TextEncoder, TextDecoder } = require('util');

class Observer {
  observe() {}
  unobserve() {}
  disconnect() {}
}

globalThis.DragEvent ??= class DragEvent extends Event {};
globalThis.TextEncoder ??= TextEncoder;
globalThis.TextDecoder ??= TextDecoder;
globalThis.ResizeObserver ??= Observer;
globalThis.IntersectionObserver ??= Observer;
globalThis.matchMedia ??= () => ({
  matches: false,
  addListener() {},
  addEventListener() {},
  removeEventListener() {}
});
globalThis.fetch ??= () => Promise.reject(new Error('no network in unit tests'));
for (const name of ['Request', 'Response', 'Headers']) {
  globalThis[name] ??= class {};
}
if (globalThis.document) {
  document.elementFromPoint ??= () => null;
  document.queryCommandSupported ??= () => false;
}

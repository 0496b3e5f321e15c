// Packages shipped as ES modules only: jest runs CommonJS, so these are transformed too.
const esm = [
  '@jupyterlab',
  '@jupyter',
  '@lumino',
  '@codemirror',
  '@lezer',
  'lib0',
  'y-protocols',
  'yjs',
  'nanoid',
  'marked',
  'vscode-ws-jsonrpc',
  '@rjsf',
  'exenv-es6',
  '@microsoft/fast-.*',
  '@tanstack',
  'lodash-es'
].join('|');

module.exports = {
  testEnvironment: 'jsdom',
  modulePathIgnorePatterns: ['<rootDir>/lib/'],
  testRegex: 'src/__tests__/.*\\.spec\\.tsx?$',
  setupFiles: ['<rootDir>/jest.setup.js'],
  transform: {
    '^.+\\.[jt]sx?$': [
      '@swc/jest',
      {
        jsc: {
          target: 'es2020',
          parser: { syntax: 'typescript', tsx: true },
          transform: { react: { runtime: 'classic' } }
        },
        module: { type: 'commonjs' }
      }
    ]
  },
  transformIgnorePatterns: [`/node_modules/(?!(${esm})/)`],
  moduleNameMapper: { '\\.css$': 'identity-obj-proxy', '\\.svg$': '<rootDir>/jest.svg.js' }
};

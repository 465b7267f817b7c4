// The protocol client: no DOM in here, so that Node can test it.
export * from './types';
export * from './utf8';
export * from './errors';
export * from './ids';
export * from './attachments';
export * from './model';
export * from './connection';
export * from './client';

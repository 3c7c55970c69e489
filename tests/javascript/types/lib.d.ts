// As much of ECMAScript as good.ts and bad.ts need: the compiler's own library is not in dukpy.
interface Array<T> { readonly length: number; [index: number]: T }
interface ReadonlyArray<T> { readonly length: number; readonly [index: number]: T }
interface Boolean {}
interface CallableFunction {}
interface Error { name: string; message: string; stack?: string }
declare var Error: { new (message?: string): Error; prototype: Error };
interface Function {}
interface IArguments {}
interface NewableFunction {}
interface Number {}
interface Object {}
interface RegExp {}
interface String { readonly length: number; slice(start: number): string; toUpperCase(): string }
interface PromiseLike<T> { then<R>(fulfilled: (value: T) => R): PromiseLike<R> }
interface Promise<T> { then<R>(fulfilled: (value: T) => R): Promise<R> }
interface PromiseConstructor { new <T>(executor: (resolve: (value: T) => void) => void): Promise<T> }
declare var Promise: PromiseConstructor;
interface ArrayBuffer { readonly byteLength: number; slice(start: number): ArrayBuffer }
declare var ArrayBuffer: { new (length: number): ArrayBuffer };
interface SharedArrayBuffer { readonly byteLength: number }
interface AsyncIterable<T, R = any, N = any> { readonly never?: [T, R, N] }
interface ArrayBufferView { readonly buffer: ArrayBuffer }
interface Uint8Array extends ArrayBufferView {}
declare var Uint8Array: { new (length: number): Uint8Array };
declare var JSON: { stringify(value: any): string };
declare var String: (value: any) => string;

// Preact without its compatibility layer has no memo(): this is all of it that is needed.

import { Component, h, type ComponentType, type FunctionComponent, type VNode } from 'preact';

/** A component that is drawn again only when `same` says that its properties differ. */
export function memo<P extends object>(inner: FunctionComponent<P>, same: (a: P, b: P) => boolean): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      return !same(this.props as P, next);
    }
    override render(): VNode {
      return h(inner, this.props as P) as VNode;
    }
  };
}

/** TeX's mathematics as tokens, read one after another: commands, numbers, and single marks. */

const TOKEN = /\\[A-Za-z]+|\\[^]|\d+(?:\.\d+)?|[^]/uy;
const BLANK = /(?:\s|%[^\n]*)*/y;

export class TexTokens {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  /** The next token behind blanks; "" at the end. */
  peek() {
    BLANK.lastIndex = this.at;
    this.at += BLANK.exec(this.text)[0].length;
    TOKEN.lastIndex = this.at;
    return TOKEN.exec(this.text)?.[0] ?? "";
  }

  next() {
    const token = this.peek();
    this.at += token.length;
    return token;
  }

  /** Go past a token that must stand here; throws where another does. */
  take(wanted) {
    if (this.next() !== wanted) throw new Error(`no ${wanted}`);
  }

  /** Go past a token if it stands here. Whether it did. */
  has(wanted) {
    const does = this.peek() === wanted;
    if (does) this.next();
    return does;
  }

  /** Of a number the first digit alone. */
  digit() {
    this.at += 1;
    return this.text[this.at - 1];
  }

  /** The text of a group, as it stands. */
  group() {
    this.take("{");
    const begin = this.at;
    for (let open = 1; open; this.at += 1) {
      const here = this.text[this.at];
      if (here === undefined) throw new Error("not closed");
      open += here === "{" ? 1 : here === "}" ? -1 : 0;
    }
    return this.text.slice(begin, this.at - 1);
  }
}

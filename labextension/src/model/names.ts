/**
 * Names of variables, checked as the user types. The server has the last word: it accepts what is a name in all
 * languages, so that a notebook can change its kernel.
 */

const words = (text: string) => text.trim().split(/\s+/);

const RESERVED = new Set([
  // Python: keywords and builtins
  ...words(
    `False None True and as assert async await break class continue def del elif else except finally for from global
    if import in is lambda nonlocal not or pass raise return try while with yield match case type _
    abs all any ascii bin bool bytearray bytes callable chr classmethod compile complex copyright credits delattr dict
    dir divmod enumerate eval exec exit filter float format frozenset getattr globals hasattr hash help hex id input
    int isinstance issubclass iter len license list locals map max memoryview min next object oct open ord pow print
    property quit range repr reversed round set setattr slice sorted staticmethod str sum super tuple vars zip
    dmsp In Out`
  ),
  // C++
  ...words(
    `alignas alignof asm auto case catch char class const constexpr default delete do double enum explicit export
    extern false friend goto inline long mutable namespace new noexcept nullptr operator private protected public
    register requires short signed sizeof static struct switch template this throw true typedef typeid typename union
    unsigned using virtual void volatile wchar_t xor std main`
  ),
  // R
  ...words('repeat function TRUE FALSE NULL Inf NaN NA c t q'),
  // Julia
  ...words('baremodule begin elseif end let local macro module quote')
]);

/** What can be wrong with a name. `taken` is a warning, the others are refusals. */
export type NameProblem = 'empty' | 'syntax' | 'keyword' | 'taken';

/**
 * Whether a name may go into code at all: letters, digits and underscores, no leading digit.
 *
 * Deliberately narrower than what languages allow: names also come from a notebook's metadata, which a stranger
 * may have written.
 */
export function isIdentifier(name: string): boolean {
  return name.length <= 80 && /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !name.startsWith('__');
}

/** The first problem of a name, or null. */
export function checkName(name: string, taken: ReadonlySet<string>): NameProblem | null {
  if (!name) {
    return 'empty';
  }
  if (!isIdentifier(name)) {
    return 'syntax';
  }
  if (RESERVED.has(name)) {
    return 'keyword';
  }
  return taken.has(name) ? 'taken' : null;
}

/** Whether a problem keeps the name from being used. */
export function refuses(problem: NameProblem | null): boolean {
  return problem !== null && problem !== 'taken';
}

/** The key of a kernel's language in the API: `python`, `c++`, `r`, `julia`, or "" when it is none of them. */
export function languageKey(name: string | null | undefined): string {
  const key = (name ?? '').trim().toLowerCase();
  if (key === 'python' || key === 'python3' || key === 'ipython') {
    return 'python';
  }
  if (key === 'c++' || key === 'cpp' || /^c\+\+\d\d$/.test(key)) {
    return 'c++';
  }
  return key === 'r' || key === 'julia' ? key : '';
}

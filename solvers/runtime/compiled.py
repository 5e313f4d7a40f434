"""Compiled code (numba): functions that are compiled once, where Python enters them.

Left to itself, numba turns every function into machine code of its own, and then once more into every
function that calls it, callees of callees included. Here a function that is called by another compiled one is
a *part*: its types are inferred and its code is generated once, and then it is only linked into what Python
calls, an *entry*, which alone is optimised, turned into machine code and kept (`solvers.runtime.kept`). That
takes half of the time, and what runs is as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import PYFUNCTYPE, c_void_p, cast, py_object
from typing import Any

from numba import _dynfunc
from numba.core import config, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.cpu import CPUContext
from numba.core.environment import lookup_environment
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature
from numba.extending import overload
from numba.np import arrayobj

from solvers.runtime.kept import Kept
from solvers.runtime.plain import plain

FLAGS = {"reassoc", "contract"}
"""What compiled sums may be rearranged by: order and fused products, nothing that hides infinities.

For `njit(cache=True, nogil=True, fastmath=FLAGS)`: compiled once per user, and without the interpreter's
lock, so that rows run side by side.
"""


def njit(
    *, cache: bool = True, stand_in: Callable[..., Any] | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """A decorator as `numba.njit`, whose functions are parts of one another and entries for Python.

    Args:
        cache: whether the machine code is kept for later processes.
        stand_in: what is called instead where Python does without compiled code (`solvers.runtime.plain`);
            None for the function itself.
        options: of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            return stand_in or function
        return Entry(function, {**options, "nopython": True, "boundscheck": None}, cache, stand_in)

    return decorate


class Part(JITCodeLibrary):
    """Code that is linked into what calls it, and neither optimised nor turned into machine code before."""

    def finalize(self) -> None:
        """See that nothing is added any more."""
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        _relink(self._final_module, "weak_odr", ())  # what numba writes into several modules is linked once
        for library in self._linking_libraries:
            self._reload_init.update(library._reload_init)
        self._finalized = True

    @property
    def alone(self) -> Any:
        """Its module, without those that it calls."""
        self._ensure_finalized()
        return self._final_module

    def _get_module_for_linking(self) -> Any:
        """Its module with all that it calls: for functions that other packages compile."""
        if self._shared_module is None:
            whole = self.alone.clone()
            for library in everything([self])[1:]:
                whole.link_in(_module(library), preserve=True)
            _relink(whole, "linkonce_odr", ())
            self._shared_module = whole
        return self._shared_module


class Whole(JITCodeLibrary):
    """An entry's code with all its parts: one module, optimised once, of which others see the entry alone."""

    def finalize(self) -> None:
        """Link, optimise, and turn into machine code."""
        self._raise_if_finalized()
        seen = {function.name for function in self._final_module.functions if not function.is_declaration}
        for library in everything(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(_module(library), preserve=True)
        _relink(self._final_module, "private", seen)  # internal ones would be found from other modules
        self._optimize_final_module()
        self._final_module.verify()
        self._finalize_final_module()

    def serialize_using_object_code(self) -> tuple[str, str, tuple[bytes, bytes]]:
        """See numba; no code to link into others is kept, only what it defines."""
        self._ensure_finalized()
        names = self._codegen._create_empty_module(self.name)
        return self.name, "object", (self._get_compiled_object(), _bitcode(names, self._final_module))


class Pipeline(Compiler):
    """Compiles an entry, and parts where others are called for."""

    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        super().__init__(typing, target, library, *rest)
        self.codegen = target.codegen()

    def compile_extra(self, func: Any) -> Any:
        """See numba."""
        library = self.state.library = Whole(self.codegen, func.__qualname__)
        library.enable_object_caching()
        with _parts(self.codegen):
            return super().compile_extra(func)


class Entry(CPUDispatcher):
    """A compiled function that Python calls; where compiled code calls it, `part` stands in for it."""

    def __init__(
        self, function: Callable[..., Any], options: dict[str, Any], cache: bool,
        stand_in: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(function, {}, options, Pipeline)
        self.stand_in = stand_in or function
        inner = {**options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        self.targetoptions = {**options, "no_cfunc_wrapper": True}
        self._compiler.targetoptions = self.targetoptions
        self.part = CPUDispatcher(function, {}, inner)
        self._told: dict[Any, object] = {}
        if cache:
            self._cache = Kept(self)

    def __call__(self, *args: Any, **kws: Any) -> Any:
        """See numba."""
        if plain():
            return self.stand_in(*args, **kws)
        return super().__call__(*args, **kws)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """See numba; a constant among the arguments is a number like any other."""
        args = tuple(types.unliteral(each) for each in args)
        kws = {name: types.unliteral(each) for name, each in kws.items()}
        return self.part.get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        """See numba."""
        return self.part.get_overload(sig)

    def compile(self, sig: Any) -> Any:
        """See numba. Arrays that can't be written to share the code of others: no entry writes into data."""
        given, _ = normalize_signature(sig)
        plain = tuple(_writable(each) for each in given)
        try:
            code, mine = super().compile(plain), object()
            # once, whatever threads meet here: where two kinds fit, numba would look for code at every call
            if plain != given and self._told.setdefault(given, mine) is mine:
                self._insert([each._code for each in given], code, False)
            return code
        finally:
            if isinstance(self._cache, Kept):
                self._cache.release()

    def __reduce__(self) -> Any:
        return _by_name, (self.py_func.__module__, self.py_func.__qualname__)


def _writable(kind: Any) -> Any:
    """A type whose arrays may be written to."""
    if isinstance(kind, types.Array):
        return kind if kind.mutable else kind.copy(readonly=False)
    if isinstance(kind, types.BaseTuple) and len(kind):
        inner = [_writable(each) for each in kind]
        return types.BaseTuple.from_types(inner, getattr(kind, "instance_class", None))
    return kind


def _by_name(module: str, name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(module), name)


def everything(libraries: Iterable[Any]) -> list[Any]:
    """Libraries and what they link in, callers first, each once."""
    found: dict[Any, None] = {}
    waiting = list(libraries)[::-1]
    while waiting:
        library = waiting.pop()
        if library not in found:
            found[library] = None
            if isinstance(library, Part):
                waiting += library._linking_libraries[::-1]
    return list(found)


def _module(library: Any) -> Any:
    return library.alone if isinstance(library, Part) else library._get_module_for_linking()


def _relink(module: Any, linkage: str, but: Iterable[str]) -> None:
    for function in module.functions:
        if not function.is_declaration and function.name not in but:
            function.linkage = linkage


def _bitcode(empty: Any, module: Any) -> bytes:
    """A module that defines the visible names of another, without their code."""
    from llvmlite import binding, ir

    void = ir.FunctionType(ir.VoidType(), [])
    for each in module.functions:
        if not each.is_declaration and each.linkage.name != "private":
            ir.IRBuilder(ir.Function(empty, void, each.name).append_basic_block()).ret_void()
    return bytes(binding.parse_assembly(str(empty)).as_bitcode())


@contextmanager
def _parts(codegen: Any) -> Iterator[None]:
    """Have all that is compiled meanwhile be parts, and errors short; numba compiles one thing at a time."""
    before = codegen._library_class, arrayobj.raise_with_shape_context
    codegen._library_class, arrayobj.raise_with_shape_context = Part, _misfit
    try:
        yield
    finally:
        codegen._library_class, arrayobj.raise_with_shape_context = before


def _misfit(source: Any, place: Any) -> None:
    """What is raised where an array is assigned to a slice of another shape."""


@overload(_misfit)
def _tell_misfit(source: Any, place: Any) -> Any:
    """Numba's own words name the shapes: strings for them are a fifth of all there is to compile."""

    def impl(source: Any, place: Any) -> None:
        raise ValueError("cannot assign slice from input of different size")

    return impl


def _refuse(*_: object) -> None:
    """What is called in place of a part, which nobody outside of compiled code can."""
    raise RuntimeError("only compiled code calls this function")


_executable = CPUContext.get_executable
_never = PYFUNCTYPE(py_object, py_object, py_object, py_object)(_refuse)
_NEVER = cast(_never, c_void_p).value


def _get_executable(self: Any, library: Any, fndesc: Any, env: Any) -> Any:
    """`CPUContext.get_executable`, for parts, which have no machine code, and for entries with parts."""
    if isinstance(library, Part):
        name = fndesc.qualname.split(".")[-1]
        return _dynfunc.make_function(fndesc.lookup_module(), name, "a part", _NEVER, env, (library,))
    made = _executable(self, library, fndesc, env)
    for variable in library._final_module.global_variables:
        if variable.name.startswith("_ZN08NumbaEnv"):
            known = lookup_environment(variable.name)
            if known is not None:
                library.codegen.set_env(variable.name, known)
    return made


CPUContext.get_executable = _get_executable  # type: ignore[method-assign]

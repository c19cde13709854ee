"""Compiling ahead leaves nothing behind, and all that edits need is compiled after it."""

from napari_nucseg.core import _edit_kernels
from napari_nucseg.session.warm_up import warm_up


def test_it_compiles_the_loops_of_edits():
    warm_up()
    for kernel in (_edit_kernels.refit, _edit_kernels.region, _edit_kernels.anchor, _edit_kernels.areas):
        assert kernel.signatures

"""The napari side: nothing else here imports napari or Qt."""

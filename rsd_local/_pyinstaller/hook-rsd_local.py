"""What a frozen application needs of rsd_local: modules that are imported by name, abacus' models, the catalogue, the version."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

from rsd_local.catalogue import models_file

hiddenimports = collect_submodules("rsd_local", filter=lambda name: not name.startswith("rsd_local._pyinstaller"))
datas = collect_data_files("rsd_local", excludes=["models.toml"]) + [(str(models_file()), "rsd_local")]
datas += copy_metadata("rsd-local") + copy_metadata("llama-cpp-python")

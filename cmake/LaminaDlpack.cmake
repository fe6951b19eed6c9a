# LAMINA_DLPACK: the folder of dlpack/dlpack.h 1.x, which the C interface's DLPack functions are compiled with. PyPI's
# apache-tvm-ffi carries it, which `./do test` and `./do build` install into .venv and the wheel's build has in its prefix
# path; distributions' may be of before 1.0.
file(GLOB in_environment ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/tvm_ffi/include)
list(TRANSFORM CMAKE_PREFIX_PATH APPEND /tvm_ffi/include OUTPUT_VARIABLE in_prefixes)
find_path(LAMINA_DLPACK dlpack/dlpack.h HINTS ${in_prefixes} ${in_environment})
set(LAMINA_HAS_DLPACK OFF)
if(EXISTS "${LAMINA_DLPACK}/dlpack/dlpack.h")
  file(STRINGS ${LAMINA_DLPACK}/dlpack/dlpack.h major REGEX "^#define DLPACK_MAJOR_VERSION 1$")
  if(major)
    set(LAMINA_HAS_DLPACK ON)
  endif()
endif()
message(STATUS "DLPack: ${LAMINA_HAS_DLPACK}")

# Builds the library as its users do, then the README's example on it, and runs that.
#   cmake -DMODE=shared|static|subdirectory -DSOURCE= -DBINARY= (of a build that may be installed) -DBUILD= -DWORK= -DOPTIONS=
#     -P run.cmake
# shared installs BINARY; static and subdirectory build once more, in BUILD, with OPTIONS. BUILD lies as deep as BINARY, so that
# a compiler cache, which sees relative paths, has the objects.
cmake_minimum_required(VERSION 3.25)
function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(check_example)
  execute_process(COMMAND ${ARGV} OUTPUT_VARIABLE output COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
  message("${output}")
  # 9 taps of 0.1 and 0.5 give 1.4 inside and 4 taps give 0.9 in the corner, 128 times 0.01 of that and 0.5.
  if(NOT output MATCHES "y\\[0\\] = 1\\.652" OR NOT output MATCHES "multiply-accumulates")
    message(FATAL_ERROR "the README's example printed something else")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK} ${BUILD})
file(READ ${SOURCE}/README.md readme)
if(NOT readme MATCHES "<!-- example -->\n```cpp\n(.*)```\n<!-- /example -->")
  message(FATAL_ERROR "README.md has no example between its markers")
endif()
set(code "${CMAKE_MATCH_1}")
file(WRITE ${WORK}/example.cc "${code}")

if(MODE STREQUAL "subdirectory")
  run(${CMAKE_COMMAND} --no-warn-unused-cli -G Ninja -S ${SOURCE}/tests/package/parent -B ${BUILD} -DLAMINA_SOURCE=${SOURCE}
      -DEXAMPLE=${WORK}/example.cc ${OPTIONS})
  run(${CMAKE_COMMAND} --build ${BUILD})
  check_example(${BUILD}/example)
  return()
endif()

set(binary ${BINARY})
if(MODE STREQUAL "static")
  set(binary ${BUILD})
  run(${CMAKE_COMMAND} -G Ninja -S ${SOURCE} -B ${binary} -DBUILD_SHARED_LIBS=OFF -DLAMINA_BUILD_TESTS=OFF
      -DLAMINA_BUILD_TOOLS=OFF ${OPTIONS})
  run(${CMAKE_COMMAND} --build ${binary})
endif()
run(${CMAKE_COMMAND} --install ${binary} --prefix ${WORK}/first)
file(RENAME ${WORK}/first ${WORK}/moved)  # an installation may be moved

run(${CMAKE_COMMAND} --no-warn-unused-cli -G Ninja -S ${SOURCE}/tests/package -B ${WORK}/outside -DCMAKE_PREFIX_PATH=${WORK}/moved
    -DEXAMPLE=${WORK}/example.cc ${OPTIONS})
run(${CMAKE_COMMAND} --build ${WORK}/outside)
check_example(${WORK}/outside/example)

# The same by pkg-config.
find_program(PKG_CONFIG pkg-config)
if(NOT PKG_CONFIG)
  message(FATAL_ERROR "pkg-config is not installed: apt-get install pkg-config")
endif()
file(GLOB_RECURSE pc ${WORK}/moved/lamina.pc)
cmake_path(GET pc PARENT_PATH pc_folder)
set(ENV{PKG_CONFIG_PATH} ${pc_folder})
set(kind --libs)
if(MODE STREQUAL "static")
  set(kind --libs --static)
endif()
execute_process(COMMAND ${PKG_CONFIG} --cflags ${kind} lamina OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE
                COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(flags)
execute_process(COMMAND ${PKG_CONFIG} --variable=libdir lamina OUTPUT_VARIABLE libdir OUTPUT_STRIP_TRAILING_WHITESPACE
                COMMAND_ERROR_IS_FATAL ANY)
run(${CXX} -std=c++20 ${WORK}/example.cc -o ${WORK}/by_pkg_config ${flags} -Wl,-rpath,${libdir})
check_example(${WORK}/by_pkg_config)

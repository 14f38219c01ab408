# One precompiled header for the whole project, compiled once and reused.
add_library(educloud_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cpp)
target_precompile_headers(educloud_pch PUBLIC ${CMAKE_SOURCE_DIR}/cmake/pch.hpp)
target_link_libraries(educloud_pch PUBLIC nlohmann_json::nlohmann_json Threads::Threads)
target_include_directories(educloud_pch PUBLIC ${CMAKE_SOURCE_DIR}/src)

# educloud_library(NAME [LINK lib...]): a static library of every .cpp in this folder. NAME is
# also the alias educloud::NAME, so that a misspelt dependency fails at configure time.
function(educloud_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  # main.cpp belongs to the program: in a library it would compete with a test's own main.
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  if(sources)
    add_library(educloud_${name} STATIC ${sources})
    target_precompile_headers(educloud_${name} REUSE_FROM educloud_pch)
    set(scope PUBLIC)
  else()
    add_library(educloud_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(educloud_${name} ${scope} ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(educloud_${name} ${scope} nlohmann_json::nlohmann_json Threads::Threads ${ARG_LINK})
  add_library(educloud::${name} ALIAS educloud_${name})
endfunction()

# educloud_daemon(NAME [LINK lib...]): the program educloud-NAME from this folder's app/main.cpp;
# everything else of the daemon is in libraries, so that tests can link it.
function(educloud_daemon name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(educloud-${name} app/main.cpp)
  target_precompile_headers(educloud-${name} REUSE_FROM educloud_pch)
  target_link_libraries(educloud-${name} PRIVATE ${ARG_LINK})
  set_property(GLOBAL APPEND PROPERTY EDUCLOUD_PROGRAMS educloud-${name})
endfunction()

# educloud_test(NAME LABEL label [LINK lib...]): one test program of every .cpp in this folder.
function(educloud_test name)
  cmake_parse_arguments(ARG "" "LABEL" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_executable(${name} ${sources})
  target_precompile_headers(${name} REUSE_FROM educloud_test_main)
  target_link_libraries(${name} PRIVATE educloud_test_main ${ARG_LINK})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 900)
endfunction()

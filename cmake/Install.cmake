get_property(programs GLOBAL PROPERTY EDUCLOUD_PROGRAMS)
if(programs)
  install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
# `programs`: the daemons and the CLI without the tests.
add_custom_target(programs DEPENDS ${programs})

get_property(programs GLOBAL PROPERTY EDUCLOUD_PROGRAMS)
# The simulator is for whoever works on the source.
set(installed ${programs})
list(REMOVE_ITEM installed educloud-sim)
if(installed)
  install(TARGETS ${installed} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
# `programs`: the daemons and the CLI without the tests.
add_custom_target(programs DEPENDS ${programs})

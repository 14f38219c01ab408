option(EDUCLOUD_WERROR "Warnings are errors" OFF)
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast
                    -Wcast-qual -Woverloaded-virtual -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlaps in std::string's operator+ that are not there (its PR 105651).
  add_compile_options(-Wno-restrict)
endif()
if(EDUCLOUD_WERROR)
  add_compile_options(-Werror)
endif()
# Hardening that Debian's own packages ship with. _FORTIFY_SOURCE needs optimisation.
add_compile_options(-fstack-protector-strong)
if(NOT EDUCLOUD_SANITIZE)
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()
add_link_options(-Wl,-z,relro -Wl,-z,now)

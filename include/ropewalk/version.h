// Version of ropewalk, by semantic versioning. CMake reads the version of the project from this file.
#ifndef ROPEWALK_VERSION_H
#define ROPEWALK_VERSION_H

#define ROPEWALK_VERSION_MAJOR 0
#define ROPEWALK_VERSION_MINOR 1
#define ROPEWALK_VERSION_PATCH 0

#endif

/*
 * fault - named points at which a test may have the process killed (contract 11.20): only in builds made with
 * -Dfault_points=true; elsewhere a point is nothing at all.
 * TROUPE_TEST_KILL=<point>:<n> kills with SIGKILL at the n-th passing of the point.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#ifdef TROUPE_FAULT_POINTS
void fault_point(const char *name);
#else
#define fault_point(name) ((void)0)
#endif

#endif

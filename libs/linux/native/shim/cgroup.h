#ifndef GANTRY_CGROUP_H
#define GANTRY_CGROUP_H

#include "plan.h"

/* Makes the plan's directories and writes its values, in the plan's order (cpuset has to be filled before a task enters). */
int cgroup_create(const struct plan *plan, struct error *err);
/* Moves the calling process into every directory (v1; with v2 it is born there by CLONE_INTO_CGROUP, and exec writes it). */
int cgroup_enter(const struct plan *plan, struct error *err);
/* Kills what is left inside and removes the directories. Best effort: what stays is reaped by the agent's recovery. */
void cgroup_remove(const struct plan *plan);
/* True where the kernel's OOM killer has struck in this container. */
bool cgroup_oom_killed(const struct plan *plan);

#endif

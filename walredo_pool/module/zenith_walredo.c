/*-------------------------------------------------------------------------
 *
 * zenith_walredo.c
 *	  Turns "postgres --single" into a WAL redo process.
 *
 * Loaded through shared_preload_libraries.  The server calls our hook when its
 * shared memory is ready and before it would look at the data directory's
 * contents, start recovery or open a database; the hook never returns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <unistd.h>

#include "access/xlogutils.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pg_shmem.h"
#include "storage/proc.h"
#include "utils/resowner.h"

#include "pg_compat.h"
#include "walredo.h"

/* Environment variable: process id of the owner, without whom we end. */
#define OWNER_VARIABLE "ZENITH_WALREDO_OWNER"

PG_MODULE_MAGIC;

extern void _PG_init(void);

static shmem_startup_hook_type previous_hook;

/*
 * Die with our owner.  The end of the input says the same, but is only seen
 * by a process that is not stuck.
 */
static void
follow_owner(void)
{
	const char *owner = getenv(OWNER_VARIABLE);

	if (owner == NULL)
		return;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		elog(FATAL, "prctl(PR_SET_PDEATHSIG) failed: %m");
	/* It may have died before. */
	if (getppid() != (pid_t) strtol(owner, NULL, 10))
		_exit(1);
}

/*
 * The System V segment only guards the data directory against a second server.
 * Marked for removal now, it cannot outlive a process that is killed.
 */
static void
forget_segment(void)
{
	/* Despite its name the variable holds the segment's key. */
	int			segment = shmget((key_t) UsedShmemSegID, 0, 0);

	if (segment < 0 || shmctl(segment, IPC_RMID, NULL) < 0)
		elog(WARNING, "cannot mark the shared memory segment for removal: %m");
}

static void
take_over(void)
{
	int			output_fd;

	if (previous_hook)
		previous_hook();

	follow_owner();

	/* Whatever else prints to standard output must not get into the answers. */
	output_fd = dup(STDOUT_FILENO);
	if (output_fd < 0 || fcntl(output_fd, F_SETFD, FD_CLOEXEC) < 0 ||
		dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		elog(FATAL, "cannot set up file descriptors: %m");

	forget_segment();

	InitProcess();
	BaseInit();
	InRecovery = true;
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "WAL redo");
	redo_startup();
	sandbox_enter();
	serve(STDIN_FILENO, output_fd);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress || IsPostmasterEnvironment)
		ereport(FATAL,
				(errmsg("zenith_walredo can only be loaded by \"postgres --single\""),
				 errhint("Set it in shared_preload_libraries on the command line of a redo process.")));
	previous_hook = shmem_startup_hook;
	shmem_startup_hook = take_over;
}

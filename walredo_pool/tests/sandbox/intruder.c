/*-------------------------------------------------------------------------
 *
 * intruder.c
 *	  A resource manager whose redo function does what none should do.
 *
 * It stands for a redo function that a record has taken over.  Each attempt is
 * made twice: when the library is loaded, so that it is known that it can
 * succeed, and as redo of a record, in a process that serves.  The page that
 * the record makes has the results: for each attempt two int32 behind the page
 * header, 0 for success or the error number, of the former and of the latter.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "fmgr.h"
#include "storage/bufmgr.h"

#define MANAGER_ID 201

PG_MODULE_MAGIC;

extern void _PG_init(void);

static int32
closed(int fd)
{
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int32
open_file(void)
{
	return closed(open("/etc/passwd", O_RDONLY));
}

static int32
make_file(void)
{
	int32		result = closed(open("intruder", O_RDWR | O_CREAT, 0600));

	if (result == 0)
		unlink("intruder");
	return result;
}

static int32
open_inet_socket(void)
{
	return closed(socket(AF_INET, SOCK_STREAM, 0));
}

static int32
open_unix_socket(void)
{
	return closed(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int32
copy_descriptor(void)
{
	return closed(dup(STDIN_FILENO));
}

static int32
fork_process(void)
{
	pid_t		child = fork();

	if (child < 0)
		return errno;
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
	return 0;
}

/* There is no such program, but whoever may run programs is told so. */
static int32
run_program(void)
{
	char	   *nothing[] = {NULL};

	execve("/nowhere", nothing, nothing);
	return errno == ENOENT ? 0 : errno;
}

/* Not as abort() does it, which is allowed. */
static int32
signal_itself(void)
{
	return kill(getpid(), 0) < 0 ? errno : 0;
}

static int32
be_traced(void)
{
	/* An invalid request, of which only one who may ask is told. */
	ptrace(0x7fffffff, 0, NULL, NULL);
	return errno == EPERM ? EPERM : 0;
}

static int32
change_limit(void)
{
	struct rlimit limits;

	if (getrlimit(RLIMIT_STACK, &limits) < 0)
		return errno;
	return setrlimit(RLIMIT_STACK, &limits) < 0 ? errno : 0;
}

static int32
remove_file(void)
{
	return unlink("nothing") < 0 && errno != ENOENT ? errno : 0;
}

static int32
take_memory(void)
{
	size_t		bytes = UINT64CONST(16) * 1024 * 1024 * 1024;
	void	   *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
							  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return errno;
	munmap(memory, bytes);
	return 0;
}

static int32 (*const attempts[]) (void) = {
	open_file,
	make_file,
	open_inet_socket,
	open_unix_socket,
	copy_descriptor,
	fork_process,
	run_program,
	signal_itself,
	be_traced,
	change_limit,
	remove_file,
	take_memory,
};

static int32 results[lengthof(attempts)][2];

static void
attempt(int when)
{
	for (int i = 0; i < lengthof(attempts); i++)
	{
		errno = 0;
		results[i][when] = attempts[i] ();
	}
}

static void
redo(XLogReaderState *record)
{
	Buffer		buffer = XLogInitBufferForRedo(record, 0);
	Page		page = BufferGetPage(buffer);

	attempt(1);
	PageInit(page, BLCKSZ, 0);
	memcpy(PageGetContents(page), results, sizeof(results));
	PageSetLSN(page, record->EndRecPtr);
	MarkBufferDirty(buffer);
	UnlockReleaseBuffer(buffer);
}

static void
describe(StringInfo text, XLogReaderState *record)
{
}

static const char *
identify(uint8 info)
{
	return NULL;
}

static RmgrData manager = {
	.rm_name = "intruder",
	.rm_redo = redo,
	.rm_desc = describe,
	.rm_identify = identify,
};

void
_PG_init(void)
{
	RegisterCustomRmgr(MANAGER_ID, &manager);
	attempt(0);
}

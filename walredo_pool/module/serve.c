/*-------------------------------------------------------------------------
 *
 * serve.c
 *	  Reads requests, answers them.  See ../PROTOCOL.md for the messages.
 *
 * Each answer is written as soon as it is there.  So whoever finds the process
 * dead or stuck knows at which request: the first one without an answer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/uio.h>
#include <unistd.h>

#include "access/bufmask.h"
#include "access/rmgr.h"
#include "access/xlog_internal.h"
#include "utils/memutils.h"

#include "walredo.h"
#include "walredo_protocol.h"

/* Size of the read buffer; larger only while a message needs it. */
#define INPUT_BYTES (1024 * 1024)

#define PAYLOAD_BYTES_MAX \
	((uint64) WALREDO_RECORD_SIZE + WALREDO_RECORD_BYTES_MAX)

typedef struct MessageHeader
{
	uint32		kind;
	uint32		argument;
	uint64		length;			/* of the payload, without padding */
} MessageHeader;

StaticAssertDecl(sizeof(MessageHeader) == WALREDO_HEADER_SIZE, "header size");
StaticAssertDecl(WALREDO_ALIGNMENT == MAXIMUM_ALIGNOF, "records must be aligned");

typedef struct BeginMessage
{
	uint64		id;
	uint32		spc;
	uint32		db;
	uint32		rel;
	uint32		fork;
	uint32		block;
	uint32		reserved;
} BeginMessage;

StaticAssertDecl(sizeof(BeginMessage) == WALREDO_BEGIN_SIZE, "begin size");

typedef struct MaskMessage
{
	uint64		id;
	uint32		block;
	uint32		reserved;
} MaskMessage;

StaticAssertDecl(sizeof(MaskMessage) == WALREDO_MASK_SIZE, "mask size");

typedef struct HelloMessage
{
	uint32		version;
	uint32		page_size;
	uint8		custom[(UINT8_MAX + 1 - WALREDO_CUSTOM_MIN) / 8];
} HelloMessage;

StaticAssertDecl(sizeof(HelloMessage) == WALREDO_HELLO_SIZE, "hello size");
StaticAssertDecl(WALREDO_CUSTOM_MIN == RM_MIN_CUSTOM_ID, "first custom resource manager");

static int	input_fd;
static int	output_fd;

/* What was read: bytes [input_start, input_end) are not yet used. */
static char *input;
static size_t input_size;
static size_t input_start;
static size_t input_end;

static MemoryContext request_context;

/* The request in progress. */
static uint64 request_id;
static bool in_request;
static bool request_failed;
static char error_text[4096];
static XLogRecPtr error_lsn;

/*
 * Nothing here is worth an orderly shutdown, which would touch files that the
 * sandbox has put out of reach.
 */
static void
leave(int code)
{
	_exit(code);
}

static void
write_all(const struct iovec *parts, int nparts)
{
	struct iovec left[4];

	Assert(nparts <= lengthof(left));
	memcpy(left, parts, nparts * sizeof(struct iovec));
	for (int i = 0; i < nparts;)
	{
		ssize_t		done = writev(output_fd, left + i, nparts - i);

		if (done < 0)
		{
			if (errno == EINTR)
				continue;
			leave(1);
		}
		while (i < nparts && (size_t) done >= left[i].iov_len)
			done -= left[i++].iov_len;
		if (i < nparts)
		{
			left[i].iov_base = (char *) left[i].iov_base + done;
			left[i].iov_len -= done;
		}
	}
}

static void
reply(uint32 kind, uint32 argument, const void *head, size_t head_len,
	  const void *body, size_t body_len)
{
	static char zeros[WALREDO_ALIGNMENT];
	MessageHeader header = {kind, argument, head_len + body_len};
	struct iovec parts[4] = {
		{&header, sizeof(header)},
		{unconstify(void *, head), head_len},
		{unconstify(void *, body), body_len},
		{zeros, MAXALIGN(body_len) - body_len},
	};

	write_all(parts, 4);
}

/*
 * Wait until at least this many bytes are in the buffer.
 */
static void
need_input(size_t bytes)
{
	if (input_end - input_start >= bytes)
		return;
	if (input_start > 0 &&
		(input_start == input_end || input_start + bytes > input_size))
	{
		memmove(input, input + input_start, input_end - input_start);
		input_end -= input_start;
		input_start = 0;
	}
	if (bytes > input_size)
	{
		/* The kernel provides the memory only as bytes really come. */
		input = repalloc_huge(input, bytes);
		input_size = bytes;
	}
	while (input_end - input_start < bytes)
	{
		ssize_t		done = read(input_fd, input + input_end, input_size - input_end);

		if (done == 0)
			leave(0);			/* the owner is gone, or wants us to go */
		if (done < 0)
		{
			if (errno == EINTR)
				continue;
			leave(1);
		}
		input_end += done;
	}
}

static void
shrink_input(void)
{
	if (input_size > INPUT_BYTES && input_end - input_start <= INPUT_BYTES)
	{
		memmove(input, input + input_start, input_end - input_start);
		input_end -= input_start;
		input_start = 0;
		input = repalloc_huge(input, INPUT_BYTES);
		input_size = INPUT_BYTES;
	}
}

/*
 * The message does not follow the protocol: there is no telling what comes
 * next, so give up.
 */
static void
bad_message(const MessageHeader *header, const char *why)
{
	elog(PANIC, "redo protocol violated: message kind %u, argument %u, " UINT64_FORMAT " bytes: %s",
		 header->kind, header->argument, header->length, why);
}

static void
begin(const MessageHeader *header, char *payload)
{
	BeginMessage *message = (BeginMessage *) payload;
	bool		has_base = (header->argument & WALREDO_BEGIN_HAS_BASE) != 0;
	RedoTarget	target;

	if (in_request)
		bad_message(header, "inside a request");
	if (header->length != WALREDO_BEGIN_SIZE + (has_base ? BLCKSZ : 0))
		bad_message(header, "wrong length");
	if (message->fork > MAX_FORKNUM)
		bad_message(header, "no such fork");

	in_request = true;
	request_failed = false;
	request_id = message->id;
	error_lsn = InvalidXLogRecPtr;
	target.spc = message->spc;
	target.db = message->db;
	target.rel = message->rel;
	target.fork = (ForkNumber) message->fork;
	target.block = message->block;
	target.verify = (header->argument & WALREDO_BEGIN_VERIFY) != 0;
	redo_begin(&target, has_base ? payload + WALREDO_BEGIN_SIZE : NULL);
}

static void
record(const MessageHeader *header, char *payload)
{
	if (!in_request)
		bad_message(header, "outside a request");
	if (header->length < WALREDO_RECORD_SIZE)
		bad_message(header, "wrong length");
	if (request_failed)
		return;
	memcpy(&error_lsn, payload, sizeof(error_lsn));
	redo_record(payload + WALREDO_RECORD_SIZE, header->length - WALREDO_RECORD_SIZE, error_lsn);
}

static void
finish(const MessageHeader *header)
{
	if (!in_request)
		bad_message(header, "outside a request");
	if (header->length != 0)
		bad_message(header, "wrong length");
	if (request_failed)
	{
		uint64		head[2] = {request_id, error_lsn};

		reply(WALREDO_ERROR, 0, head, sizeof(head), error_text, strlen(error_text));
	}
	else
	{
		reply(WALREDO_PAGE, 0, &request_id, sizeof(request_id), redo_page(), BLCKSZ);
		redo_end();
	}
	in_request = false;
}

static void
mask(const MessageHeader *header, char *payload)
{
	MaskMessage *message = (MaskMessage *) payload;
	char	   *page = payload + WALREDO_MASK_SIZE;

	if (in_request)
		bad_message(header, "inside a request");
	if (header->length != WALREDO_MASK_SIZE + BLCKSZ)
		bad_message(header, "wrong length");
	if (header->argument > WALREDO_MASK_PAGE_HEADER)
		bad_message(header, "no such resource manager");

	request_id = message->id;
	error_lsn = InvalidXLogRecPtr;
	if (header->argument == WALREDO_MASK_PAGE_HEADER)
		mask_page_lsn_and_checksum(page);
	else if (!RmgrIdExists(header->argument))
		elog(ERROR, "resource manager %u is not loaded", header->argument);
	else if (RmgrTable[header->argument].rm_mask)
		RmgrTable[header->argument].rm_mask(page, message->block);
	else
		mask_page_lsn_and_checksum(page);
	reply(WALREDO_PAGE, 0, &request_id, sizeof(request_id), page, BLCKSZ);
}

/*
 * An error was thrown: keep its text for the answer and clean up.
 */
static void
note_error(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(request_context);
	error = CopyErrorData();
	FlushErrorState();
	snprintf(error_text, sizeof(error_text), "%s%s%s%s%s",
			 error->message ? error->message : "unknown error",
			 error->detail ? "; " : "", error->detail ? error->detail : "",
			 error->context ? "; " : "", error->context ? error->context : "");
	redo_abort();
}

static void
handle(const MessageHeader *header, char *payload)
{
	PG_TRY();
	{
		switch (header->kind)
		{
			case WALREDO_BEGIN:
				begin(header, payload);
				break;
			case WALREDO_RECORD:
				record(header, payload);
				break;
			case WALREDO_FINISH:
				finish(header);
				break;
			case WALREDO_MASK:
				mask(header, payload);
				break;
			default:
				bad_message(header, "unknown kind");
		}
	}
	PG_CATCH();
	{
		note_error();
		request_failed = true;
		if (header->kind == WALREDO_MASK)
		{
			uint64		head[2] = {request_id, InvalidXLogRecPtr};

			reply(WALREDO_ERROR, 0, head, sizeof(head), error_text, strlen(error_text));
		}
	}
	PG_END_TRY();
	MemoryContextSwitchTo(request_context);
	MemoryContextReset(request_context);
}

/*
 * Serve requests until the input ends.
 */
void
serve(int in_fd, int out_fd)
{
	HelloMessage hello = {PG_VERSION_NUM, BLCKSZ};

	input_fd = in_fd;
	output_fd = out_fd;
	input = MemoryContextAllocHuge(TopMemoryContext, INPUT_BYTES);
	input_size = INPUT_BYTES;
	request_context = AllocSetContextCreate(TopMemoryContext, "WAL redo request",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(request_context);

	for (int rmid = WALREDO_CUSTOM_MIN; rmid <= RM_MAX_ID; rmid++)
	{
		int			bit = rmid - WALREDO_CUSTOM_MIN;

		if (RmgrIdExists(rmid))
			hello.custom[bit / 8] |= 1 << (bit % 8);
	}
	reply(WALREDO_HELLO, WALREDO_PROTOCOL_VERSION, &hello, sizeof(hello), NULL, 0);
	for (;;)
	{
		MessageHeader header;

		need_input(WALREDO_HEADER_SIZE);
		memcpy(&header, input + input_start, WALREDO_HEADER_SIZE);
		if (header.length > PAYLOAD_BYTES_MAX)
			bad_message(&header, "too long");
		need_input(WALREDO_HEADER_SIZE + MAXALIGN(header.length));
		handle(&header, input + input_start + WALREDO_HEADER_SIZE);
		input_start += WALREDO_HEADER_SIZE + MAXALIGN(header.length);
		shrink_input();
	}
}

/*-------------------------------------------------------------------------
 *
 * walredo_protocol.h
 *	  What a redo process and its owner say to each other.
 *
 * ../PROTOCOL.md explains it.  ../src/protocol.rs holds the same numbers; the
 * test tests/protocol_header.rs compares the two, so keep each definition in
 * the form "#define NAME value".
 *
 *-------------------------------------------------------------------------
 */
#ifndef WALREDO_PROTOCOL_H
#define WALREDO_PROTOCOL_H

#define WALREDO_PROTOCOL_VERSION 2

/* Size in bytes of the header of every message, and of the unit of length. */
#define WALREDO_HEADER_SIZE 16
#define WALREDO_ALIGNMENT 8

/* Messages to the process. */
#define WALREDO_BEGIN 1
#define WALREDO_RECORD 2
#define WALREDO_FINISH 3
#define WALREDO_MASK 4

/* Messages from the process. */
#define WALREDO_HELLO 101
#define WALREDO_PAGE 102
#define WALREDO_ERROR 103

/* Flags of WALREDO_BEGIN. */
#define WALREDO_BEGIN_HAS_BASE 1
#define WALREDO_BEGIN_VERIFY 2

/* Argument of WALREDO_MASK that is no resource manager: only pd_lsn and pd_checksum. */
#define WALREDO_MASK_PAGE_HEADER 256

/* Size in bytes of what precedes a page or a record in the payload. */
#define WALREDO_BEGIN_SIZE 32
#define WALREDO_RECORD_SIZE 8
#define WALREDO_MASK_SIZE 16
#define WALREDO_HELLO_SIZE 24
#define WALREDO_PAGE_SIZE 8
#define WALREDO_ERROR_SIZE 16

/* First of the resource managers that extensions can register; HELLO has a bit for each. */
#define WALREDO_CUSTOM_MIN 128

/* Longest record, in bytes. */
#define WALREDO_RECORD_BYTES_MAX 1069547520

#endif							/* WALREDO_PROTOCOL_H */

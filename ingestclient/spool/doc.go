// Package spool sends the files that appear in a directory, and never loses one. If it is
// killed at any moment, the next start goes on where it was. No file is stored twice unless
// the operator asks for it.
//
//	s, err := spool.Open(spool.Config{Dir: "/in", Uploader: client, Finder: client, Prober: client})
//	defer s.Close()
//	err = s.Run(ctx) // until ctx ends and uploads under way have finished
//
// Invariants:
//
//   - From each state that a crash can leave, the next start ends with the file stored once,
//     or in ambiguous/ (TestRecovery, TestRecoveryOfHalfSteps).
//   - A source is deleted, moved or kept as configured, and only after it was stored
//     (TestOnSuccess). A move replaces no file (TestMoveKeepsNamesakes).
//   - A file is not sent while it changes (TestSettles, TestChangedFileGoesBack).
//   - An upload without an outcome is looked up under its id (TestLostAnswerIsLookedUp). If
//     that is not possible, it is ambiguous and is not repeated (TestLostAnswerIsAmbiguous).
//   - A file that an element refuses does not stop the others (TestRefusedFileIsPutAside).
//     Every other failure stops all files (TestGateClosesForAll).
//   - A stop loses no file: the next run sends those that were not sent (TestStop).
//   - Only one process uses the state of a directory (TestSecondInstanceIsRefused).
//   - After damage of the journal, claims without a record count as sent
//     (TestDamagedJournal).
//   - Nothing is sent that could not be recorded: a full disk stops all files
//     (TestFullDisk).
//
// # Directories and journal
//
// The directories say where a file is. The journal says what the element may have of it.
// Neither repeats the other, so they cannot contradict each other. A file is claimed by one
// rename (or, where sources stay, one link) into a directory whose path tells its id
// and name:
//
//	DIR/report.pdf                                         waits
//	DIR/.artstore-ingest/claimed/<id>/file/report.pdf      being sent, or next
//	DIR/.artstore-ingest/failed/<id>/file/report.pdf       refused; reason.json beside file/
//	DIR/.artstore-ingest/ambiguous/<id>/file/report.pdf    may be stored; the same
//	DIR/.artstore-ingest/done/report.pdf                   stored, with MoveSource
//
// # The crash story
//
// The steps of one file are: claim, content sent, claim durable, intent durable, end
// of the request sent, receipt verified, receipt durable, source disposed of. What
// the next start finds in claimed/ tells between which of them the last run ended:
//
//	no file in the claim     before the claim, or after the disposal: removed
//	its name in DIR as well  nothing was sent, and it was being returned: removed
//	reason.json              between a refusal and its rename: renamed
//	no record, or unsent     before the intent: queued again
//	intent                   the element may have it. If each element was proved to keep
//	                         our ids: asked for under its id, and sent again under the
//	                         same id if not there; a copy that arrives late makes ours a
//	                         duplicate, which the element refuses and the client
//	                         recognises. Else: ambiguous/, and a human decides
//	stored, kept             only the disposal is left
//
// A journal that ends in the middle of a line was cut during a write that was not yet
// acknowledged. Any other line that is no record, and a line that is missing between
// two others, is damage: every claim without a record counts as one with an intent
// then. Where sources stay, nothing is sent after damage.
//
// An intent ends with a receipt, or with the record that nothing was stored. If the
// claim of an intent without an end was removed by hand, its receipt is lost. Where
// sources stay, its file is claimed again and counts as sent.
//
// # Owner of the state
//
// Other users may write to DIR. Each part of the state must belong to the user of the
// spool and be closed to others for writing, or the start is refused
// (TestStateOfSomebodyElseIsRefused). DIR and the state are opened once. Each step
// works in the open directories and follows no link, so that a rename cannot lead it
// to another place (TestStepsStayInTheStateThatWasOpened,
// TestSourcesBehindLinksAreNotTouched). Only the file that was claimed is sent
// (TestSwappedClaimIsNotSent). No step needs a second name for a file of another user,
// except the claims of KeepSource (TestFilesOfOthers).
//
// # Failures
//
// A file that the element refuses goes to failed/. Every other failure, of the element,
// the account, the token endpoint, a full store or our own disk, stops all files (type
// breaker). Then the elements are probed, and after a good answer one file at a time is
// tried, until one is stored. Files wait in DIR meanwhile. At most half of the workers
// send files from 64 MiB up, so that small files never wait for large ones.
//
// # Rules for callers
//
// DIR, everything in it and the state is one local POSIX file system with hard links. The
// Uploader's errors are classified by the sentinels of ingestclient. The Uploader must
// read each content to its end and call its method Unchanged before it sends the end
// of the request, as ingestclient.Client does: that call records the intent. Writers
// rename complete files into DIR, or do not change a file for the time Settle once it
// is complete.
package spool

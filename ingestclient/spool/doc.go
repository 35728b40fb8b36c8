// Package spool sends the files that appear in a directory, and never loses one:
// killed at any instant, it goes on where it was, and nothing is stored twice
// unless somebody asks for it.
//
//	s, err := spool.Open(spool.Config{Dir: "/in", Uploader: client, Finder: client, Prober: client})
//	defer s.Close()
//	err = s.Run(ctx) // until ctx ends; then what is under way is finished
//
// # Two truths
//
// Where a file is, the directories say. What the element may know of it, the
// journal says. Neither repeats the other, so they cannot disagree. A file is
// claimed by one rename (or, where sources stay, one link) into a directory
// whose path tells its id and name:
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
//	its name in DIR as well  nothing was sent, and it was being given back: removed
//	reason.json              between a refusal and its rename: renamed
//	no record, or unsent     before the intent: queued as if nothing had been
//	intent                   the element may have it. If each element was proved to keep
//	                         our ids: asked for under its id, and sent again under the
//	                         same id if not there; a copy that arrives late makes ours a
//	                         duplicate, which the element refuses and the client
//	                         recognises. Else: ambiguous/, and a human decides
//	stored, kept             only the disposal is left
//
// A journal that ends in the middle of a line was cut while writing what nobody
// had been told was written. Any other line that is no record, and a line that is
// missing between two others, is damage: every claim without a record counts as one
// with an intent then. Where sources stay, nothing is sent after damage.
//
// An intent ends with a receipt, or with the record that nothing was stored. One
// without an end, whose claim somebody has removed, is a lost receipt. Where sources
// stay, its file is claimed again and counts as sent.
//
// # Whose state it is
//
// Others may write to DIR. What is below the state is ours alone: each part of it
// belongs to us and is closed to others for writing, or the start is refused
// (TestStateOfSomebodyElseIsRefused). DIR and the state are opened once, and each
// step goes through what is open, without following a link, so that renaming
// leads none of them elsewhere (TestStepsStayInTheStateThatWasOpened,
// TestSourcesBehindLinksAreNotTouched). What is sent is the file that was claimed
// (TestSwappedClaimIsNotSent). No step needs a second name for a file of others
// but the claims of KeepSource (TestFilesOfOthers).
//
// # Failures
//
// What the element says about a file ends in failed/. Everything else, be it the
// element, the account, the token endpoint, a full store or our own disk, closes
// one gate for all files. The elements are asked whether it is over, and then one
// file at a time is on trial, until one is stored. Files wait in the directory
// meanwhile, where they were put. Half of the workers at
// most send files from 64 MiB up, so that small ones always move.
//
// # Rules for callers
//
// DIR, everything in it and the state is one local POSIX file system with hard links. The
// Uploader's errors are judged by the sentinels of ingestclient. Each content that
// it is given must be read to its end and asked whether it is unchanged before the
// end of a request goes out, as ingestclient.Client does: that writes the intent.
// Writers rename whole files in, or are done when the
// file stands still for Settle.
package spool

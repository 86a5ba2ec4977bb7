------------------------ MODULE GaleHeartbeatHandoff ------------------------
(* A ceiling that the nodes of a fleet share by heartbeats whose answers     *)
(* take as long as they like, with acknowledged handoff. Each answer is a    *)
(* grant of a share. A node goes by the latest that it has, reports which    *)
(* one that is together with its requests in flight, and counts as holding   *)
(* the largest share that it may still go by. Answers that arrive after a    *)
(* later one are dropped.                                                    *)
(* Statement and proof: docs/proofs.md, "Fleet ceilings".                    *)
EXTENDS Integers, FiniteSets, Sequences

CONSTANTS
    Nodes,      \* not empty
    Limit,      \* the ceiling
    Grants,     \* how many grants each node can be sent; positive
    Trim,       \* whether to forget grants that can matter no longer
    Broken      \* the rule that does not hold, to show what it is for:
                \*   "none"
                \*   "issued"  a node holds what it may still go by, not only what it was
                \*             granted last and what it says that it goes by
                \*   "drain"   what it has in flight counts as held beside that
                \*   "torn"    a node reports its grant and its requests at one moment

VARIABLES
    active,     \* the nodes of the fleet
    sent,       \* the shares that each node was granted
    applied,    \* which of them it goes by; 0 if none
    inFlight,   \* its requests in flight
    known,      \* which grant it has said that it goes by; 0 if none
    reported    \* how many requests in flight it has said to have

vars == <<active, sent, applied, inFlight, known, reported>>

ASSUME Nodes # {} /\ Limit >= 1 /\ Grants >= 1
ASSUME Trim \in BOOLEAN /\ Broken \in {"none", "issued", "drain", "torn"}

Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b

MaxFrom(s, i) ==
    IF i > Len(s) THEN 0
    ELSE CHOOSE v \in {s[k] : k \in i..Len(s)} : \A k \in i..Len(s) : s[k] <= v

At(s, i) == IF i = 0 THEN 0 ELSE s[i]
Last(grants) == IF grants = <<>> THEN 0 ELSE grants[Len(grants)]

Share(n) == At(sent[n], applied[n])

Target == (Limit + Cardinality(active) - 1) \div Cardinality(active)

Open(n) ==
    IF Broken = "issued" THEN Max(Last(sent[n]), At(sent[n], known[n]))
    ELSE MaxFrom(sent[n], Max(1, known[n]))

Held(n) == IF Broken = "drain" THEN Open(n) ELSE Max(Open(n), reported[n])

RECURSIVE HeldBy(_)
HeldBy(nodes) ==
    IF nodes = {} THEN 0
    ELSE LET n == CHOOSE x \in nodes : TRUE IN Held(n) + HeldBy(nodes \ {n})

RECURSIVE GrantedTo(_)
GrantedTo(nodes) ==
    IF nodes = {} THEN 0
    ELSE LET n == CHOOSE x \in nodes : TRUE IN Last(sent[n]) + GrantedTo(nodes \ {n})

RECURSIVE Flying(_)
Flying(nodes) ==
    IF nodes = {} THEN 0
    ELSE LET n == CHOOSE x \in nodes : TRUE IN inFlight[n] + Flying(nodes \ {n})

TypeOK ==
    /\ active \in (SUBSET Nodes) \ {{}}
    /\ \A n \in Nodes :
        /\ Len(sent[n]) \in 0..Grants
        /\ \A i \in 1..Len(sent[n]) : sent[n][i] \in 0..Limit
        /\ known[n] <= applied[n]
        /\ applied[n] <= Len(sent[n])
        /\ inFlight[n] \in 0..Limit
        /\ reported[n] \in 0..Limit

Init ==
    /\ active \in (SUBSET Nodes) \ {{}}
    /\ sent = [n \in Nodes |-> <<>>]
    /\ applied = [n \in Nodes |-> 0]
    /\ inFlight = [n \in Nodes |-> 0]
    /\ known = [n \in Nodes |-> 0]
    /\ reported = [n \in Nodes |-> 0]

\* The node goes by a grant and has said that it goes by another. If Trim, what both indices are
\* beyond is forgotten and they count from there on; the first grant stays as long as either is none.
Forget(n, at, ack) ==
    IF Trim THEN
        LET drop == Max(0, Min(Max(at, 1), Max(ack, 1)) - 1)
        IN /\ sent' = [sent EXCEPT ![n] = SubSeq(@, drop + 1, Len(@))]
           /\ applied' = [applied EXCEPT ![n] = Max(0, at - drop)]
           /\ known' = [known EXCEPT ![n] = Max(0, ack - drop)]
    ELSE
        /\ sent' = sent
        /\ applied' = [applied EXCEPT ![n] = at]
        /\ known' = [known EXCEPT ![n] = ack]

Beat(n) ==
    /\ n \in active
    /\ Len(sent[n]) < Grants
    /\ sent' = [sent EXCEPT ![n] = Append(@, Max(0, Min(Target, Limit - HeldBy(active \ {n}))))]
    /\ UNCHANGED <<active, applied, inFlight, known, reported>>

Deliver(n) ==
    /\ n \in active
    /\ \E i \in (applied[n] + 1)..Len(sent[n]) : Forget(n, i, known[n])
    /\ UNCHANGED <<active, inFlight, reported>>

Report(n) ==
    /\ n \in active
    /\ Broken # "torn"
    /\ known[n] # applied[n] \/ reported[n] # inFlight[n]
    /\ Forget(n, applied[n], applied[n])
    /\ reported' = [reported EXCEPT ![n] = inFlight[n]]
    /\ UNCHANGED <<active, inFlight>>

ReportGrant(n) ==
    /\ n \in active
    /\ Broken = "torn"
    /\ known[n] # applied[n]
    /\ Forget(n, applied[n], applied[n])
    /\ UNCHANGED <<active, inFlight, reported>>

ReportInFlight(n) ==
    /\ n \in active
    /\ Broken = "torn"
    /\ reported[n] # inFlight[n]
    /\ reported' = [reported EXCEPT ![n] = inFlight[n]]
    /\ UNCHANGED <<active, sent, applied, inFlight, known>>

Acquire(n) ==
    /\ n \in active
    /\ inFlight[n] < Share(n)
    /\ inFlight' = [inFlight EXCEPT ![n] = @ + 1]
    /\ UNCHANGED <<active, sent, applied, known, reported>>

Release(n) ==
    /\ inFlight[n] > 0
    /\ inFlight' = [inFlight EXCEPT ![n] = @ - 1]
    /\ UNCHANGED <<active, sent, applied, known, reported>>

Reset(n) ==
    /\ sent' = [sent EXCEPT ![n] = <<>>]
    /\ applied' = [applied EXCEPT ![n] = 0]
    /\ inFlight' = [inFlight EXCEPT ![n] = 0]
    /\ known' = [known EXCEPT ![n] = 0]
    /\ reported' = [reported EXCEPT ![n] = 0]

Join(n) ==
    /\ n \notin active
    /\ active' = active \union {n}
    /\ Reset(n)

Leave(n) ==
    /\ n \in active
    /\ active # {n}
    /\ active' = active \ {n}
    /\ Reset(n)

Next == \E n \in Nodes :
    \/ Beat(n) \/ Deliver(n) \/ Report(n) \/ ReportGrant(n) \/ ReportInFlight(n)
    \/ Acquire(n) \/ Release(n) \/ Join(n) \/ Leave(n)

Spec == Init /\ [][Next]_vars

GlobalCap == GrantedTo(active) <= Limit
InflightCap == Flying(active) <= Limit

\* False on purpose: a checker must find the states in which the ceiling is reached.
SharesNotReached == GrantedTo(active) <= Limit - 1
NotReached == Flying(active) <= Limit - 1
=============================================================================

------------------------ MODULE GaleFederatedLeasing ------------------------
(* Regions serve requests from escrow that they lease in batches from one    *)
(* global budget. Escrow is void when the budget's window rolls; before that *)
(* a region may give back what it does not need.                             *)
(* Statement and proof: docs/proofs.md, "Federation".                        *)
EXTENDS Integers

CONSTANTS
    Regions,    \* the regions; not empty
    Limit,      \* units that one window admits over all regions
    Batch,      \* units in one lease
    Partial,    \* whether a lease takes what is left where that is less than Batch
    Returns     \* whether regions give escrow back

VARIABLES
    budget,     \* units left in the global window
    escrow,     \* units that each region holds
    admitted    \* requests served since the window rolled

vars == <<budget, escrow, admitted>>

ASSUME Regions # {} /\ Limit \in Nat /\ Batch \in Nat /\ Batch >= 1
ASSUME Partial \in BOOLEAN /\ Returns \in BOOLEAN

TypeOK ==
    /\ budget \in 0..Limit
    /\ escrow \in [Regions -> 0..(Batch - 1)]
    /\ admitted \in 0..Limit

Init ==
    /\ budget = Limit
    /\ escrow = [r \in Regions |-> 0]
    /\ admitted = 0

Serve(r) ==
    /\ escrow[r] >= 1
    /\ escrow' = [escrow EXCEPT ![r] = @ - 1]
    /\ admitted' = admitted + 1
    /\ UNCHANGED budget

Lease(r) ==
    /\ escrow[r] = 0
    /\ budget >= (IF Partial THEN 1 ELSE Batch)
    /\ LET granted == IF budget < Batch THEN budget ELSE Batch IN
        /\ budget' = budget - granted
        /\ escrow' = [escrow EXCEPT ![r] = granted - 1]
    /\ admitted' = admitted + 1

Return(r) ==
    /\ Returns
    /\ escrow[r] >= 1
    /\ budget' = budget + escrow[r]
    /\ escrow' = [escrow EXCEPT ![r] = 0]
    /\ UNCHANGED admitted

Roll ==
    /\ budget' = Limit
    /\ escrow' = [r \in Regions |-> 0]
    /\ admitted' = 0

Next == \E r \in Regions : Serve(r) \/ Lease(r) \/ Return(r) \/ Roll

Spec == Init /\ [][Next]_vars

Overshoot == admitted <= Limit

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == admitted <= Limit - 1
=============================================================================

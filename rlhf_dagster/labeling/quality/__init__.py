"""How far labels can be trusted: agreement, known answers, habits of annotators, competence."""

// What wakes an operator. The names in the queries are those that the app logs; docs/operations.md says what to do.

@description('Name of the action group.')
param groupName string

@description('Azure region.')
param location string

@description('Tags.')
param tags { *: string }

@description('The workspace that is asked.')
param workspaceId string

@description('Where alerts go by e-mail. Empty: nowhere.')
param email string

// threshold: the alert fires above it. `silence` turns that round: it fires when nothing at all was seen.
var rules = [
  {
    name: 'graphpost-poison-messages'
    title: 'Jobs failed five times'
    text: 'Messages were put aside. GET /v1/settings/queue/{queue}/poison shows them, POST .../poison/replay tries again.'
    severity: 2
    minutes: 15
    threshold: 0
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.poison.messages" | parse Message with * "count=" count:long | where count > 0'
  }
  {
    name: 'graphpost-accounts-authentication-error'
    title: 'Accounts were refused'
    text: 'Accounts went into authenticationError. lastError of the account says who must do what.'
    severity: 2
    minutes: 15
    threshold: 0
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.accounts.authentication_error"'
  }
  {
    name: 'graphpost-events-gaps'
    title: 'The audit found unheard mail'
    text: 'Messages were told by the audit alone, which neither push nor polling should leave to it.'
    severity: 2
    minutes: 60
    threshold: 0
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.events.gaps"'
  }
  {
    name: 'graphpost-webhooks-paused'
    title: 'A webhook endpoint is paused'
    text: 'It failed for days, and its events are held. GET /v1/webhooks/endpoints shows which one.'
    severity: 1
    minutes: 15
    threshold: 0
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.webhooks.paused"'
  }
  {
    name: 'graphpost-webhooks-dead'
    title: 'Webhooks were not delivered'
    text: 'Events became dead letters. GET /v1/webhooks/dead lists them, POST /v1/webhooks/replay sends them again.'
    severity: 2
    minutes: 60
    threshold: 10
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.webhooks.dead"'
  }
  {
    name: 'graphpost-damaged'
    title: 'Stored data does not open'
    text: 'Records are damaged, or the key ring lacks a key. docs/operations.md, sections Keys and What you may see.'
    severity: 1
    minutes: 15
    threshold: 0
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.storage.damaged" or Message startswith "graphpost.events.damaged" or Message startswith "graphpost.api.damaged" or Message startswith "graphpost.gate.damaged" or Message startswith "graphpost.gate.waiting"'
  }
  {
    name: 'graphpost-settings-refused'
    title: 'The app is not configured'
    text: 'Settings are missing or wrong; the log names each of them with its fix.'
    severity: 0
    minutes: 5
    threshold: 0
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.settings.refused"'
  }
  {
    name: 'graphpost-sweep-failed'
    title: 'The hourly sweep fails'
    text: 'A step of the sweep failed twice within three hours; what it makes up for waits meanwhile.'
    severity: 2
    minutes: 180
    threshold: 1
    silence: false
    query: 'AppTraces | where Message startswith "graphpost.sweep.failed"'
  }
  {
    name: 'graphpost-server-errors'
    title: 'The API answers with server errors'
    text: 'More than ten answers of 500 and above within a quarter of an hour.'
    severity: 2
    minutes: 15
    threshold: 10
    silence: false
    query: 'AppRequests | where toint(ResultCode) >= 500'
  }
  {
    name: 'graphpost-silent'
    title: 'The app does not run'
    text: 'The timer of every minute has not been seen for half an hour: nothing is polled, renewed or retried.'
    severity: 0
    minutes: 30
    threshold: 1
    silence: true
    query: 'AppRequests | where Name has "schedule_due" or OperationName has "schedule_due"'
  }
]

resource receivers 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(email)) {
  name: groupName
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'graphpost'
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for rule in rules: {
    name: rule.name
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: 'Graphpost: ${rule.title}'
      description: rule.text
      severity: rule.severity
      enabled: true
      autoMitigate: true
      // A new workspace has no table yet that a query names.
      skipQueryValidation: true
      scopes: [
        workspaceId
      ]
      evaluationFrequency: rule.minutes < 15 ? 'PT5M' : 'PT15M'
      windowSize: rule.minutes < 60 ? 'PT${rule.minutes}M' : 'PT${rule.minutes / 60}H'
      criteria: {
        allOf: [
          {
            query: rule.query
            timeAggregation: 'Count'
            operator: rule.silence ? 'LessThan' : 'GreaterThan'
            threshold: rule.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: empty(email) ? [] : [
          receivers.id
        ]
      }
    }
  }
]
